/* fuzz_sentencepiece.c - any bytes as a tokenizer.model.
 *
 * Whatever opens must also encode and decode without harm; what does not open must say why. */
#include <assert.h>
#include <stdint.h>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

static const char SAMPLE[] = "ab abc  caf\xc3\xa9 \xef\xac\x81 b\xe3\x80\x80"
                             "a<mask>\n\xf0\x9f\x98\x80 </s>";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct token_list ids = { 0 };
    struct err e = { 0 };
    struct buf text = { 0 };
    struct tokenizer *t = tokenizer_open_sentencepiece((const char *)data, n, NULL, 0, &e);

    if (!t) {
        assert(e.code == ERR_MODEL);
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
