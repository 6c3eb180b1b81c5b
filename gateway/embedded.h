/* embedded.h - the files of the web pages that are built into the gateway (web/build.cmake, embed.cmake). */
#ifndef LLMD_GATEWAY_EMBEDDED_H
#define LLMD_GATEWAY_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char
        *name; /* "index.html"; "assets/chat-6f1d0c92b3.js": never other bytes under that name */
    const char *etag; /* as its field has it: W/"..." */
    const unsigned char *bytes;
    size_t n;
    const unsigned char *gzip; /* the same, compressed; NULL: that would not be shorter */
    size_t n_gzip;
};

extern const struct embedded_file embedded_files[];
extern const size_t embedded_files_n;

#endif
