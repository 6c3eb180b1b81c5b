/* json_cut.c - see json_cut.h. */
#include "text/json_cut.h"

#include <string.h>

#include "common/utf8.h"

enum { KEY_BYTES_MAX = 256 };

bool json_cut(const char *s, size_t n, struct json_member *members, size_t n_members, struct err *e)
{
    char key[KEY_BYTES_MAX];
    struct json_slice value;
    struct json_scan j;
    size_t n_key, bad_at;

    if (!utf8_is_valid(s, n, &bad_at))
        return err_set(e, ERR_MODEL, 0, "not UTF-8 at byte %zu", bad_at);
    json_scan_init(&j, s, n, e);
    json_scan_object(&j);
    while (json_scan_key(&j, key, sizeof key, &n_key) && json_scan_skip(&j, &value))
        for (size_t i = 0; i < n_members; i++)
            if (strcmp(key, members[i].key) == 0) {
                if (members[i].value.s)
                    return json_scan_fail(&j, "member given twice");
                members[i].value = value;
            }
    return json_scan_end(&j);
}

bool json_cut_parse(const struct json_member *member, json_t **v, struct err *e)
{
    *v = NULL;
    if (!member->value.s)
        return true;
    *v = json_parse(member->value.s, member->value.n, e);
    if (*v)
        return true;
    if (e)
        e->code = ERR_MODEL;
    return err_wrap(e, "'%s'", member->key);
}
