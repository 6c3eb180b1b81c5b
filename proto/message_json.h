/* message_json.h - a message as JSON, for `llmctl --json`: every field under its name in llmd.proto, in
 * the order of its number, set or not.  Names are never reused, so the keys are stable. */
#ifndef LLMD_PROTO_MESSAGE_JSON_H
#define LLMD_PROTO_MESSAGE_JSON_H

#include "common/json.h"
#include "proto/frame.h"

/* Write `message` as one object.  Enums are written as their names, bytes are not supported (no message
 * that an operator sees has any). */
void message_write_json(struct json_writer *w, const ProtobufCMessage *message);

#endif
