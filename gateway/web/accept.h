/* accept.h - what a browser says of the answers it takes: Accept, Accept-Encoding, If-None-Match. */
#ifndef LLMD_GATEWAY_WEB_ACCEPT_H
#define LLMD_GATEWAY_WEB_ACCEPT_H

#include <stdbool.h>

/* A comma-separated list (RFC 9110, 12.5) names this word, in any case and without a weight of 0; wildcards
 * name nothing.  list may be NULL. */
bool accept_names(const char *list, const char *word);

/* If-None-Match (RFC 9110, 13.1.2) holds this tag, compared weakly, or "*".  etag: W/"..." or "...". */
bool accept_has_etag(const char *list, const char *etag);

#endif
