/* fuzz_chunks.c - any CHUNKS message, with any number of descriptors (the first byte): refused, or a set whose sizes
 * agree and into which they fit. */
#include <assert.h>
#include <stdint.h>

#include "proto/chunk_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct control_msg msg = { .type = MSG_CHUNKS };
    struct chunk_set s = { 0 };
    struct err e = { 0 };
    uint64_t bytes = 0;
    Llmd__Chunks *m = n > 0 ? llmd__chunks__unpack(NULL, n - 1, data + 1) : NULL;

    if (!m)
        return 0;
    msg.body = m;
    msg.n_fds = data[0] % (FDPASS_FDS_MAX + 1);
    for (int i = 0; i < msg.n_fds; i++)
        msg.fds[i] = -1;
    if (chunk_set_check(m, msg.n_fds, &e)) {
        chunk_set_begin(&s, m);
        assert(chunk_set_is_same(&s, m));
        assert(chunk_set_take(&s, &msg) == 0);
        for (uint32_t i = 0; i < s.n; i++)
            bytes += chunk_set_chunk_bytes(&s, i);
        assert(bytes == s.bytes);
    } else {
        assert(e.code == ERR_PROTO && e.msg[0]);
    }
    chunk_set_fini(&s);
    llmd__chunks__free_unpacked(m, NULL);
    return 0;
}
