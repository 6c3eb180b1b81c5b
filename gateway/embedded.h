/* embedded.h - files of web/ that are built into the gateway (embed.cmake). */
#ifndef LLMD_GATEWAY_EMBEDDED_H
#define LLMD_GATEWAY_EMBEDDED_H

#include <stddef.h>

extern const unsigned char embedded_docs[]; /* web/docs.html */
extern const size_t embedded_docs_bytes;

#endif
