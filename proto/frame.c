/* frame.c - check, unpack and pack frames.  Pure functions over bytes; any thread. */
#include "proto/frame.h"

#include <assert.h>
#include <string.h>

static const uint8_t magic[4] = { 'L', 'L', 'M', '1' };

static const ProtobufCMessageDescriptor *descriptor_of(unsigned type)
{
    switch (type) {
#define MSG(number, name, message, from, to)                                                       \
    case number:                                                                                   \
        return &llmd__##message##__descriptor;
#include "proto/msg.def"
#undef MSG
    default:
        return NULL;
    }
}

const char *msg_name(enum msg_type type)
{
    switch (type) {
#define MSG(number, name, message, from, to)                                                       \
    case number:                                                                                   \
        return #name;
#include "proto/msg.def"
#undef MSG
    }
    return "?";
}

static uint32_t get_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get_u32(const uint8_t *p)
{
    return get_u16(p) | get_u16(p + 2) << 16;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

bool frame_parse(struct frame *f, const uint8_t *bytes, size_t n, struct err *e)
{
    uint32_t type;

    if (n < FRAME_HEADER_BYTES)
        return err_set(e, ERR_PROTO, 0, "frame of %zu bytes, the header alone has %d", n,
                       FRAME_HEADER_BYTES);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return err_set(e, ERR_PROTO, 0, "frame does not begin with LLM1");
    if (get_u16(bytes + 4) != FRAME_VERSION)
        return err_set(e, ERR_PROTO, 0, "frame version %u, this build speaks %d",
                       (unsigned)get_u16(bytes + 4), FRAME_VERSION);
    type = get_u16(bytes + 6);
    if (!descriptor_of(type))
        return err_set(e, ERR_PROTO, 0, "frame type %u is no message", (unsigned)type);
    if (get_u32(bytes + 8) != 0)
        return err_set(e, ERR_PROTO, 0, "frame's reserved field is not 0");
    if (get_u32(bytes + 12) != n - FRAME_HEADER_BYTES ||
        n - FRAME_HEADER_BYTES > FRAME_BODY_BYTES_MAX)
        return err_set(e, ERR_PROTO, 0, "%s frame says %u body bytes, %zu came",
                       msg_name((enum msg_type)type), (unsigned)get_u32(bytes + 12),
                       n - FRAME_HEADER_BYTES);
    *f = (struct frame){ .type = (enum msg_type)type,
                         .body = bytes + FRAME_HEADER_BYTES,
                         .body_bytes = n - FRAME_HEADER_BYTES };
    return true;
}

ProtobufCMessage *frame_unpack(const struct frame *f, struct err *e)
{
    ProtobufCMessage *m =
        protobuf_c_message_unpack(descriptor_of(f->type), NULL, f->body_bytes, f->body);

    if (!m)
        err_set(e, ERR_PROTO, 0, "%s body of %zu bytes does not unpack", msg_name(f->type),
                f->body_bytes);
    return m;
}

void frame_free_body(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

void frame_pack(struct buf *out, enum msg_type type, const void *message)
{
    const ProtobufCMessage *m = message;
    size_t body_bytes = protobuf_c_message_get_packed_size(m);
    uint8_t *at;

    assert(m->descriptor == descriptor_of(type));
    assert(body_bytes <= FRAME_BODY_BYTES_MAX);
    buf_reserve(out, FRAME_HEADER_BYTES + body_bytes);
    at = (uint8_t *)out->data + out->n;
    memcpy(at, magic, sizeof magic);
    at[4] = FRAME_VERSION;
    at[5] = 0;
    at[6] = (uint8_t)type;
    at[7] = (uint8_t)((unsigned)type >> 8);
    put_u32(at + 8, 0);
    put_u32(at + 12, (uint32_t)body_bytes);
    protobuf_c_message_pack(m, at + FRAME_HEADER_BYTES);
    out->n += FRAME_HEADER_BYTES + body_bytes;
    out->data[out->n] = '\0';
}
