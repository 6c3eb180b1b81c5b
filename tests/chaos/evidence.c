/* evidence.c - see evidence.h. */
#include "tests/chaos/evidence.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"

enum { FILES_MAX = 40 }; /* a broken build must not fill the disk */

void evidence_init(struct evidence *v, uint64_t seed, bool is_verbose)
{
    *v = (struct evidence){ .seed = seed, .started_ns = clock_mono_ns(), .is_verbose = is_verbose };
}

void evidence_fini(struct evidence *v)
{
    buf_fini(&v->story);
}

static void put_line(struct evidence *v, const char *fmt, va_list ap)
{
    char line[512];

    vsnprintf(line, sizeof line, fmt, ap);
    buf_printf(&v->story, "%10.1f ms  mono %.6f  %s\n",
               (double)(clock_mono_ns() - v->started_ns) / NS_PER_MS,
               (double)clock_mono_ns() / NS_PER_S, line);
    if (v->is_verbose)
        fprintf(stderr, "%10.1f ms  %s\n", (double)(clock_mono_ns() - v->started_ns) / NS_PER_MS,
                line);
}

void evidence_note(struct evidence *v, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put_line(v, fmt, ap);
    va_end(ap);
}

static void make_dir(struct evidence *v)
{
    const char *where = getenv("LLMD_CHAOS_DIR");

    if (v->dir[0])
        return;
    snprintf(v->dir, sizeof v->dir, "%.60s/llmd-chaos-evidence-XXXXXX", where ? where : "/tmp");
    if (!mkdtemp(v->dir)) {
        perror(v->dir);
        v->dir[0] = '\0';
        return;
    }
    fprintf(stderr, "chaos: a defect; evidence is kept in %s\n", v->dir);
}

static void write_file(const struct evidence *v, const char *name, const struct buf *bytes)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", v->dir, name);
    f = v->dir[0] ? fopen(path, "we") : NULL;
    if (!f)
        return;
    fwrite(bytes->data ? bytes->data : "", 1, bytes->n, f);
    fclose(f);
}

void evidence_defect(struct evidence *v, const struct buf *wanted, const struct buf *got,
                     const char *fmt, ...)
{
    char text[400], name[64];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    v->n_defects++;
    make_dir(v);
    evidence_note(v, "DEFECT %u: %s", v->n_defects, text);
    if (!v->is_verbose && v->n_defects <= FILES_MAX)
        fprintf(stderr, "chaos: defect %u: %s\n", v->n_defects, text);
    if (v->n_defects > FILES_MAX)
        return;
    if (wanted) {
        snprintf(name, sizeof name, "defect-%u.wanted", v->n_defects);
        write_file(v, name, wanted);
    }
    if (got) {
        snprintf(name, sizeof name, "defect-%u.got", v->n_defects);
        write_file(v, name, got);
    }
}

void evidence_keep(struct evidence *v, const char *log_path, const char *name)
{
    struct buf log = { 0 };
    char file[96], bytes[65536];
    size_t n;
    FILE *f;

    if (v->n_defects == 0)
        return;
    write_file(v, "story.txt", &v->story);
    f = fopen(log_path, "re");
    while (f && (n = fread(bytes, 1, sizeof bytes, f)) > 0)
        buf_add(&log, bytes, n);
    if (f)
        fclose(f);
    snprintf(file, sizeof file, "server-%s.log", name);
    write_file(v, file, &log);
    buf_fini(&log);
}
