/* frame.h - one message: a 16-byte little-endian header, then one protobuf body.
 *
 *    0      4        6      8              12            16
 *    +------+--------+------+--------------+-------------+----------------
 *    | LLM1 | version| type | reserved = 0 | body_bytes  | protobuf body
 *    +------+--------+------+--------------+-------------+----------------
 *
 * The same frame travels in one ZeroMQ message, in one datagram of a control socket, and over a pipe.
 * What came from outside is checked at this door (magic, version, type, length, and that the body
 * unpacks as its message) and trusted behind it.  A peer of another version gets an error that names
 * both versions. */
#ifndef LLMD_PROTO_FRAME_H
#define LLMD_PROTO_FRAME_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/llmd.pb-c.h"

enum { FRAME_HEADER_BYTES = 16, FRAME_VERSION = 1 };
#define FRAME_BODY_BYTES_MAX (64u << 20)

enum msg_type {
#define MSG(number, name, message, from, to) MSG_##name = number,
#include "proto/msg.def"
#undef MSG
};

/* "HELLO", or "?" for a number that is no message. */
const char *msg_name(enum msg_type type);

struct frame {
    enum msg_type type;
    const uint8_t *body; /* borrowed from the bytes given to frame_parse() */
    size_t body_bytes;
};

/* Split `bytes` (exactly one frame) into *f.  ERR_PROTO for any malformed input; *f is then untouched. */
bool frame_parse(struct frame *f, const uint8_t *bytes, size_t n, struct err *e);

/* Unpack the body as the message of its type.  NULL and ERR_PROTO when it is not one.  Returned,
 * caller frees with frame_free_body(). */
ProtobufCMessage *frame_unpack(const struct frame *f, struct err *e);
void frame_free_body(void *message);

/* Append header and packed body to `out`. */
void frame_pack(struct buf *out, enum msg_type type, const void *message);

#endif
