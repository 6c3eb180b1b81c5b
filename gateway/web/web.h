/* web.h - the pages for people: chat, status and the API's description, from the files of web/.
 *
 * Their URLs are relative, so they work behind any prefix of a reverse proxy; they ask nothing of other
 * origins, which their Content-Security-Policy enforces. */
#ifndef LLMD_GATEWAY_WEB_H
#define LLMD_GATEWAY_WEB_H

#include "gateway/embedded.h"
#include "gateway/reply.h"

/* What the request says of the answers it takes; each may be NULL. */
struct web_wish {
    const char *accept_encoding, *if_none_match;
};

#define WEB_ASSETS "/ui/assets/" /* and a file's name */

/* NULL when it is not built in. */
const struct embedded_file *web_find(const char *name);
/* One of them: 200, or 304 when the client has it already. */
void web_answer(const struct embedded_file *file, const struct web_wish *wish, struct reply *r);

#endif
