/* message_json.c - walk a protobuf-c message by its descriptor. */
#include "proto/message_json.h"

#include <assert.h>

static void write_enum(struct json_writer *w, const ProtobufCFieldDescriptor *field, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(field->descriptor, value);

    if (v)
        jw_str(w, v->name);
    else
        jw_int(w, value);
}

/* The value at `at`, which protobuf-c keeps in the C type of its kind. */
static void write_value(struct json_writer *w, const ProtobufCFieldDescriptor *field,
                        const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        jw_int(w, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        jw_int(w, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        jw_uint(w, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        jw_uint(w, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        jw_float(w, *(const float *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        jw_double(w, *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        jw_bool(w, *(const protobuf_c_boolean *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(w, field, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        jw_str(w, *(char *const *)at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (*(const ProtobufCMessage *const *)at)
            message_write_json(w, *(const ProtobufCMessage *const *)at);
        else
            jw_null(w);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        assert(!"bytes have no JSON form here");
    }
}

static size_t bytes_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return 4;
    }
}

void message_write_json(struct json_writer *w, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *d = message->descriptor;

    jw_object(w);
    for (unsigned i = 0; i < d->n_fields; i++) { /* kept sorted by number */
        const ProtobufCFieldDescriptor *field = &d->fields[i];
        const char *at = (const char *)message + field->offset;
        jw_key(w, field->name);
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            write_value(w, field, at);
            continue;
        }
        jw_array(w);
        size_t n =
            *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
        const char *values = *(const char *const *)(const void *)at;
        for (size_t k = 0; k < n; k++)
            write_value(w, field, values + k * bytes_of(field->type));
        jw_array_end(w);
    }
    jw_object_end(w);
}
