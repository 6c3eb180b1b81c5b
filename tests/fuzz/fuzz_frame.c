/* fuzz_frame.c - any bytes as a message of another process: refused, or unpacked and packed again. */
#include <assert.h>
#include <stdint.h>

#include "proto/frame.h"
#include "proto/message_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct buf again = { 0 }, text = { 0 };
    struct json_writer w = { .out = &text };
    ProtobufCMessage *m;
    struct frame f;
    struct err e = { 0 };

    if (!frame_parse(&f, data, n, &e) || !(m = frame_unpack(&f, &e))) {
        assert(e.code == ERR_PROTO && e.msg[0]);
        return 0;
    }
    frame_pack(&again, f.type, m);
    assert(frame_parse(&f, (const uint8_t *)again.data, again.n, &e));
    message_write_json(&w, m);
    /* jansson has no integers past 2^63 */
    json_t *v = json_loadb(text.data, text.n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    assert(v);
    json_decref(v);
    frame_free_body(m);
    buf_fini(&again);
    buf_fini(&text);
    return 0;
}
