/* segment.c - create, check and map memfds.  Called at start-up only. */
#include "proto/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/host.h"
#include "common/huge.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

static const char *const kind_names[] = {
    [SEGMENT_BOARD] = "board",
    [SEGMENT_LEDGER] = "ledger",
    [SEGMENT_KVPOOL] = "kvpool",
    [SEGMENT_WEIGHTS] = "weights",
    [SEGMENT_CONNECTIONS] = "connections",
    [SEGMENT_GROUP] = "group",
    [SEGMENT_CHUNKS] = "chunks",
    [SEGMENT_HOST_TIER] = "hosttier",
};

static int make_memfd(const char *name, unsigned flags)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);

    if (fd < 0 && errno == EINVAL) /* an older kernel */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    return fd;
}

/* Size it, seal it, map it.  Of huge pages mmap() is what reserves them, all or none. */
static bool create(struct segment *s, const char *name, size_t bytes, enum segment_pages pages,
                   struct err *e)
{
    bool is_reserved = pages == SEGMENT_PAGES_RESERVED;
    size_t page = is_reserved ? (size_t)HUGE_BYTES : (size_t)sysconf(_SC_PAGESIZE);
    void *map = MAP_FAILED;
    int fd;

    bytes = (bytes + page - 1) / page * page;
    fd = make_memfd(name, is_reserved ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    if (fd < 0)
        return err_set(e, ERR_SYS, errno, "create segment '%s'", name);
    if (ftruncate(fd, (off_t)bytes) < 0) {
        err_set(e, ERR_SYS, errno, "size segment '%s' to %zu bytes", name, bytes);
        goto fail;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        err_set(e, ERR_SYS, errno, "seal segment '%s'", name);
        goto fail;
    }
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        err_set(e, ERR_SYS, errno, "map segment '%s' of %zu bytes", name, bytes);
        goto fail;
    }
    if (is_reserved && host_huge_is_limited("") && fallocate(fd, 0, 0, (off_t)bytes) < 0) {
        err_set(e, ERR_SYS, errno, "take %zu bytes of huge pages for segment '%s'", bytes, name);
        goto fail;
    }
    *s = (struct segment){ .hdr = map, .bytes = bytes, .fd = fd, .writable = true };
    s->hdr->pages = pages;
    return true;
fail:
    if (map != MAP_FAILED)
        munmap(map, bytes);
    close(fd);
    return false;
}

static void put_header(struct segment *s, enum segment_kind kind, uint32_t version,
                       uint64_t instance)
{
    s->hdr->kind = kind;
    s->hdr->version = version;
    s->hdr->bytes = s->bytes;
    s->hdr->instance = instance;
    s->hdr->magic = SEGMENT_MAGIC;
}

bool segment_create(struct segment *s, enum segment_kind kind, uint32_t version, const char *name,
                    size_t bytes, uint64_t instance, struct err *e)
{
    assert(bytes >= sizeof(struct segment_hdr));
    if (!create(s, name, bytes, SEGMENT_PAGES_SMALL, e))
        return false;
    put_header(s, kind, version, instance);
    return true;
}

bool segment_create_large(struct segment *s, enum segment_kind kind, uint32_t version,
                          const char *name, size_t bytes, uint64_t instance, bool wants_huge,
                          struct err *e)
{
    struct err why;

    if (wants_huge && bytes >= HUGE_FROM_BYTES &&
        create(s, name, bytes, SEGMENT_PAGES_RESERVED, &why)) {
        put_header(s, kind, version, instance);
        return true;
    }
    if (!segment_create(s, kind, version, name, bytes, instance, e))
        return false;
    if (!wants_huge)
        s->hdr->pages = SEGMENT_PAGES_OFF;
    return true;
}

const char *segment_pages_name(const struct segment_hdr *h)
{
    static const char *const names[N_SEGMENT_PAGES] = { "small", "reserved", "advised", "collapsed",
                                                        "off" };
    uint32_t pages = atomic_load_explicit(&h->pages, memory_order_relaxed);

    return pages < N_SEGMENT_PAGES ? names[pages] : "small";
}

static bool header_is_ours(const struct segment_hdr *h, size_t bytes, enum segment_kind kind,
                           uint32_t version, struct err *e)
{
    if (h->magic != SEGMENT_MAGIC)
        return err_set(e, ERR_PROTO, 0, "magic is %llx, not a segment of llmd",
                       (unsigned long long)h->magic);
    if (h->kind != kind)
        return err_set(e, ERR_PROTO, 0, "segment kind is %u, expected %u", h->kind, (unsigned)kind);
    if (h->version != version)
        return err_set(e, ERR_PROTO, 0, "layout version %u, this build wants %u", h->version,
                       version);
    if (h->bytes != bytes)
        return err_set(e, ERR_PROTO, 0, "header says %llu bytes, the descriptor has %zu",
                       (unsigned long long)h->bytes, bytes);
    return true;
}

/* At a multiple of 2 MiB when it is worth it, so that memory in huge pages is mapped by huge pages: a process
 * that maps and ends in no time, and fewer misses of the address cache.  The address range is reserved with
 * room to move in, and what is left of it given back. */
static void *map_aligned(int fd, size_t bytes, int protection)
{
    const size_t align = (size_t)2 << 20;
    char *room, *at;

    if (bytes < 4 * align)
        return mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    room = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    at = room + (align - (uintptr_t)room % align) % align;
    if (mmap(at, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        munmap(room, bytes + align);
        return MAP_FAILED;
    }
    if (at > room)
        munmap(room, (size_t)(at - room));
    munmap(at + bytes, align - (size_t)(at - room));
    return at;
}

bool segment_attach(struct segment *s, int fd, enum segment_kind kind, uint32_t version,
                    bool writable, struct err *e)
{
    void *map = MAP_FAILED;
    struct stat st;
    int seals;

    if (fstat(fd, &st) < 0) {
        err_set(e, ERR_SYS, errno, "stat descriptor %d", fd);
        goto fail;
    }
    if ((size_t)st.st_size < sizeof(struct segment_hdr)) {
        err_set(e, ERR_PROTO, 0, "descriptor has %lld bytes, too few for a segment",
                (long long)st.st_size);
        goto fail;
    }
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        err_set(e, ERR_PROTO, 0, "descriptor is not sealed, it could shrink under its mapping");
        goto fail;
    }
    map = map_aligned(fd, (size_t)st.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ);
    if (map == MAP_FAILED) {
        err_set(e, ERR_SYS, errno, "map %lld bytes", (long long)st.st_size);
        goto fail;
    }
    if (!header_is_ours(map, (size_t)st.st_size, kind, version, e))
        goto fail;
    *s =
        (struct segment){ .hdr = map, .bytes = (size_t)st.st_size, .fd = fd, .writable = writable };
    return true;
fail:
    if (map != MAP_FAILED)
        munmap(map, (size_t)st.st_size);
    close(fd);
    return err_wrap(e, "attach segment '%s'", kind_names[kind]);
}

void segment_close(struct segment *s)
{
    if (!s->hdr)
        return;
    munmap(s->hdr, s->bytes);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct segment){ .fd = -1 };
}
