/* fuzz_tokenizer_json.c - any bytes as tokenizer.json and tokenizer_config.json.
 *
 * The input is the first file, then perhaps a NUL and the second.  Whatever opens must also encode
 * and decode without harm; what does not open must say why. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

static const char SAMPLE[] =
    "Once upon a  time,\n<s>\xc3\xa9t\xc3\xa9</s> 1234 \xf0\x9f\x98\x80 TAG\xe2\x96\x81x";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *json = (const char *)data, *config = n > 0 ? memchr(json, '\0', n) : NULL;
    size_t n_json = config ? (size_t)(config - json) : n;
    struct token_list ids = { 0 };
    struct err e = { 0 };
    struct buf text = { 0 };
    struct tokenizer *t = tokenizer_open_json(json, n_json, config ? config + 1 : NULL,
                                              config ? n - n_json - 1 : 0, &e);

    if (!t) {
        assert(e.code == ERR_MODEL || e.code == ERR_INPUT);
        assert(e.msg[0] != '\0');
        return 0;
    }
    for (unsigned flags = 0; flags < 8; flags++) {
        token_list_clear(&ids);
        if (!tokenizer_encode(t, SAMPLE, sizeof SAMPLE - 1, flags, &ids, &e))
            assert(e.code == ERR_INPUT);
        detokenize(t, ids.ids, ids.n, 0, &text);
    }
    token_list_fini(&ids);
    buf_fini(&text);
    tokenizer_close(t);
    return 0;
}
