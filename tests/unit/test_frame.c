/* test_frame.c - the door through which every message of another process comes.
 *
 * What would break in production: bytes of a wrong length, version or type that are believed, or an old
 * process that is not told why it is refused.  Random input prints its seed. */
#include "proto/frame.h"

#include <stdio.h>
#include <time.h>

#include "tests/check.h"

static struct buf pack_submit(void)
{
    static int32_t prompt[] = { 1, 2, 31999, -5 };
    Llmd__Submit submit = LLMD__SUBMIT__INIT;
    Llmd__Sampling sampling = LLMD__SAMPLING__INIT;
    struct buf out = { 0 };

    submit.sequence_id = 0x1122334455667788;
    submit.prompt = prompt;
    submit.n_prompt = 4;
    submit.max_tokens = 64;
    submit.deadline_ns = -1;
    sampling.seed = UINT64_MAX;
    sampling.temperature = 0.7f;
    submit.sampling = &sampling;
    frame_pack(&out, MSG_SUBMIT, &submit);
    return out;
}

static bool parse(const struct buf *b, struct frame *f, struct err *e)
{
    return frame_parse(f, (const uint8_t *)b->data, b->n, e);
}

static void frame_comes_back_as_it_was_packed(void **state)
{
    struct buf b = pack_submit();
    struct frame f;
    struct err e;

    (void)state;
    assert_ok(parse(&b, &f, &e), e);
    assert_int_equal(f.type, MSG_SUBMIT);
    assert_int_equal(f.body_bytes, b.n - FRAME_HEADER_BYTES);
    ProtobufCMessage *m = frame_unpack(&f, &e);
    assert_non_null(m);
    const Llmd__Submit *s = (const Llmd__Submit *)m;
    assert_int_equal(s->sequence_id, 0x1122334455667788);
    assert_int_equal(s->n_prompt, 4);
    assert_int_equal(s->prompt[3], -5);
    assert_int_equal(s->deadline_ns, -1);
    assert_true(s->sampling->seed == UINT64_MAX);
    assert_true(s->sampling->temperature == 0.7f);
    frame_free_body(m);
    frame_free_body(NULL);
    buf_fini(&b);
}

static void frame_header_is_the_drawn_one(void **state)
{
    struct buf b = pack_submit();
    uint32_t n = (uint32_t)b.n - FRAME_HEADER_BYTES;
    const uint8_t want[] = { 'L', 'L', 'M', '1', 1, 0,          MSG_SUBMIT,
                             0,   0,   0,   0,   0, (uint8_t)n, (uint8_t)(n >> 8),
                             0,   0 };

    (void)state;
    assert_memory_equal(b.data, want, sizeof want);
    buf_fini(&b);
}

static void frame_pack_appends(void **state)
{
    Llmd__Ready ready = LLMD__READY__INIT;
    struct buf b = { 0 };
    struct frame f;
    struct err e;

    (void)state;
    buf_add_str(&b, "before");
    frame_pack(&b, MSG_READY, &ready);
    assert_memory_equal(b.data, "before", 6);
    assert_int_equal(b.n, 6 + FRAME_HEADER_BYTES); /* an all-zero body is empty */
    assert_ok(frame_parse(&f, (const uint8_t *)b.data + 6, b.n - 6, &e), e);
    assert_int_equal(f.type, MSG_READY);
    ProtobufCMessage *m = frame_unpack(&f, &e);
    assert_non_null(m);
    frame_free_body(m);
    buf_fini(&b);
}

static void frame_parse_rejects_every_truncation(void **state)
{
    struct buf b = pack_submit();
    struct err e;

    (void)state;
    for (size_t n = 0; n < b.n; n++) {
        struct frame f = { .body_bytes = 4711 };
        uint8_t *exact = malloc(n ? n : 1); /* so that reading past it is seen */
        memcpy(exact, b.data, n);
        assert_fails(frame_parse(&f, exact, n, &e), e, ERR_PROTO, "frame");
        assert_int_equal(f.body_bytes, 4711);
        free(exact);
    }
    buf_add_char(&b, 0);
    assert_fails(parse(&b, &(struct frame){ 0 }, &e), e, ERR_PROTO, "SUBMIT frame says");
    buf_fini(&b);
}

static void frame_parse_names_both_versions(void **state)
{
    struct buf b = pack_submit();
    struct frame f;
    struct err e;

    (void)state;
    b.data[4] = 2;
    assert_fails(parse(&b, &f, &e), e, ERR_PROTO, "version 2, this build speaks 1");
    b.data[4] = 1;
    b.data[5] = 1;
    assert_fails(parse(&b, &f, &e), e, ERR_PROTO, "version 257, this build speaks 1");
    buf_fini(&b);
}

static void frame_parse_checks_each_header_byte(void **state)
{
    struct buf b = pack_submit();
    struct frame f;
    struct err e;

    (void)state;
    for (int i = 0; i < FRAME_HEADER_BYTES; i++) {
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (char)(1 << bit);
            bool ok = parse(&b, &f, &e);
            if (i == 6 && ok) /* another valid type: the body must then fail, or be that type */
                assert_int_equal(f.type, (unsigned char)b.data[6]);
            else
                assert_false(ok);
            b.data[i] ^= (char)(1 << bit);
        }
    }
    assert_ok(parse(&b, &f, &e), e);
    buf_fini(&b);
}

static void frame_parse_knows_every_message_by_name(void **state)
{
    static const struct {
        unsigned number;
        const char *name;
    } all[] = {
#define MSG(number_, name_, message, from, to) { number_, #name_ },
#include "proto/msg.def"
#undef MSG
    };
    struct frame f;
    struct err e;
    size_t n_known = 0;

    (void)state;
    for (unsigned type = 0; type < 65536; type++) {
        const uint8_t bytes[FRAME_HEADER_BYTES] = { 'L', 'L', 'M',           '1',
                                                    1,   0,   (uint8_t)type, (uint8_t)(type >> 8) };
        if (frame_parse(&f, bytes, sizeof bytes, &e))
            n_known++;
        else
            assert_int_equal(e.code, ERR_PROTO);
    }
    assert_int_equal(n_known, sizeof all / sizeof *all);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        assert_string_equal(msg_name(all[i].number), all[i].name);
    assert_string_equal(msg_name(0), "?");
    assert_string_equal(msg_name(9999), "?");
}

static void frame_unpack_refuses_a_body_that_is_none(void **state)
{
    const uint8_t bytes[] = {
        'L', 'L', 'M', '1', 1, 0, MSG_CANCEL, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x0a, 0x7f, 1
    }; /* packed field says 127 bytes */
    struct frame f;
    struct err e;

    (void)state;
    assert_ok(frame_parse(&f, bytes, sizeof bytes, &e), e);
    assert_fails(frame_unpack(&f, &e) != NULL, e, ERR_PROTO, "CANCEL body of 3 bytes");
}

static void frame_survives_mutated_bytes(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    struct buf good = pack_submit();
    int n_unpacked = 0;

    (void)state;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 20000; round++) {
        uint8_t *bytes = malloc(good.n);
        struct frame f;
        struct err e;
        memcpy(bytes, good.data, good.n);
        for (int k = rand_r(&seed) % 4; k >= 0; k--) /* header kept: the body is the point */
            bytes[FRAME_HEADER_BYTES + (size_t)rand_r(&seed) % (good.n - FRAME_HEADER_BYTES)] =
                (uint8_t)rand_r(&seed);
        assert_true(frame_parse(&f, bytes, good.n, &e));
        ProtobufCMessage *m = frame_unpack(&f, &e);
        n_unpacked += m != NULL;
        frame_free_body(m);
        free(bytes);
    }
    assert_in_range(n_unpacked, 1, 19999); /* both outcomes were met */
    buf_fini(&good);
}

static void pack_wrong_type(void *arg)
{
    struct buf b = { 0 };

    (void)arg;
    frame_pack(&b, MSG_HELLO, &(Llmd__Ready)LLMD__READY__INIT);
}

static void frame_pack_of_another_message_is_a_bug(void **state)
{
    (void)state;
    assert_aborts(pack_wrong_type, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_comes_back_as_it_was_packed),
        cmocka_unit_test(frame_header_is_the_drawn_one),
        cmocka_unit_test(frame_pack_appends),
        cmocka_unit_test(frame_parse_rejects_every_truncation),
        cmocka_unit_test(frame_parse_names_both_versions),
        cmocka_unit_test(frame_parse_checks_each_header_byte),
        cmocka_unit_test(frame_parse_knows_every_message_by_name),
        cmocka_unit_test(frame_unpack_refuses_a_body_that_is_none),
        cmocka_unit_test(frame_survives_mutated_bytes),
        cmocka_unit_test(frame_pack_of_another_message_is_a_bug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
