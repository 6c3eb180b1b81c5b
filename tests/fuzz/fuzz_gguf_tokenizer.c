/* fuzz_gguf_tokenizer.c - any bytes as a GGUF file with a tokenizer and a chat template: opened or refused, and a text
 * becomes ids of the vocabulary. */
#include <assert.h>
#include <string.h>

#include "common/gguf.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void encode(const struct tokenizer *t)
{
    static const char text[] = "Hello <s> w\xc3\xb6rld\n\n 12345 <|im_end|> \xf0\x9f\x98\x80";
    struct token_list ids = { 0 };
    struct err e;

    if (tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL,
                         &ids, &e))
        for (size_t i = 0; i < ids.n; i++)
            assert(ids.ids[i] >= 0 && ids.ids[i] < tokenizer_vocab_size(t));
    token_list_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct chat_templates ts;
    struct tokenizer *t;
    struct err e;
    struct gguf *g = gguf_parse("fuzz", data, n, &e);

    if (!g)
        return 0;
    t = tokenizer_open_gguf(g, &e);
    if (t)
        encode(t);
    else
        assert(e.code == ERR_MODEL && memchr(e.msg, '\0', sizeof e.msg));
    tokenizer_close(t);
    if (chat_templates_load_gguf(&ts, g, &e))
        chat_templates_fini(&ts);
    gguf_close(g);
    return 0;
}
