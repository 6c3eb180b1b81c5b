/* fuzz_notice.c - any bytes as a notice to llm-init: refused, or taken apart into words that may be used. */
#include <assert.h>
#include <string.h>

#include "supervisor/init/notice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct notice notice;

    if (!notice_parse(&notice, (const char *)data, n)) {
        assert(memchr(data, 0, n));
        return 0;
    }
    /* the name goes into LISTEN_FDNAMES, where ':' ends it */
    assert(notice.fd_name[0] && memchr(notice.fd_name, 0, sizeof notice.fd_name));
    assert(!strpbrk(notice.fd_name, ":\n\r\t\x7f"));
    assert(notice.has_name || strcmp(notice.fd_name, "stored") == 0);
    assert(memchr(notice.status, 0, sizeof notice.status) && !strchr(notice.status, '\n'));
    assert(notice.extend_us < UINT64_MAX / 1000);
    return 0;
}
