/* fuzz_tokenizer_encode.c - any bytes as a client's text, through a tokenizer of each kind.
 *
 * The first byte picks the tokenizer, the second the flags.  Always: what is not UTF-8 is refused and
 * leaves the list alone; no special token comes out of text unless asked for; spans are in order
 * and within the text; and, where nothing is normalized away, the ids spell the text again. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/utf8.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

#define VECTORS TEST_SOURCE_DIR "/tests/vectors/tokenizer"

static struct kind {
    const char *path;
    bool keeps_text; /* no normalizer: decoding gives the text back */
    struct tokenizer *t;
} kinds[] = {
    { "gpt2/tokenizer.json", true, NULL },
    { "llama3/tokenizer.json", true, NULL },
    { "qwen2/tokenizer.json", false, NULL },
    { "tekken/tokenizer.json", true, NULL },
    { "deepseek/tokenizer.json", true, NULL },
    { "command_r/tokenizer.json", false, NULL },
    { "nfkc/tokenizer.json", false, NULL },
    { "nfd/tokenizer.json", false, NULL },
    { "llama2/tokenizer.json", false, NULL },
    { "llama_metaspace/tokenizer.json", false, NULL },
    { "gemma/tokenizer.json", false, NULL },
    { "sp_llama/tokenizer.model", false, NULL },
    { "sp_rules/tokenizer.model", false, NULL },
    { "sp_unigram/tokenizer.model", false, NULL },
    { "sp_gemma/tokenizer.model", false, NULL },
    { "sp_unigram_bytes/tokenizer.model", false, NULL },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds, FILE_MAX = 1 << 20 };

static const struct tokenizer *open_kind(struct kind *kind)
{
    struct err e = { 0 };
    char path[512], *bytes;
    size_t n;

    if (kind->t)
        return kind->t;
    snprintf(path, sizeof path, VECTORS "/%s", kind->path);
    if (!file_read(path, FILE_MAX, &bytes, &n, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(2);
    }
    kind->t = strstr(kind->path, ".json") ? tokenizer_open_json(bytes, n, NULL, 0, &e)
                                          : tokenizer_open_sentencepiece(bytes, n, NULL, 0, &e);
    assert(kind->t);
    free(bytes);
    return kind->t;
}

static void check(const struct kind *kind, const char *text, size_t n, unsigned flags,
                  const struct token_list *ids)
{
    uint32_t last = 0;

    for (size_t i = 0; i < ids->n; i++) {
        bool unknown = ids->ids[i] == tokenizer_unk_id(kind->t);

        assert(tokenizer_token_str(kind->t, ids->ids[i], NULL));
        if (!(flags & (TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL)))
            assert(unknown || !tokenizer_is_special(kind->t, ids->ids[i]));
        if (flags & TOKENIZER_SPANS) {
            struct token_span s = ids->spans[i];
            assert(s.start <= s.end && s.end <= n && (s.start >= last || s.end == 0));
            last = s.start;
        }
    }
    if (kind->keeps_text && !(flags & TOKENIZER_ADD_SPECIAL)) {
        struct buf back = { 0 };
        detokenize(kind->t, ids->ids, ids->n, 0, &back);
        assert(back.n == n && (n == 0 || memcmp(back.data, text, n) == 0));
        buf_fini(&back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct token_list ids = { 0 };
    struct err e = { 0 };
    const char *text;
    struct kind *kind;
    size_t bad_at;
    unsigned flags;

    if (n < 2)
        return 0;
    kind = &kinds[data[0] % N_KINDS];
    flags = data[1] % 8;
    text = (const char *)data + 2;
    n -= 2;
    if (tokenizer_encode(open_kind(kind), text, n, flags, &ids, &e)) {
        assert(utf8_is_valid(text, n, &bad_at));
        check(kind, text, n, flags, &ids);
    } else {
        assert(e.code == ERR_INPUT && ids.n == 0);
    }
    token_list_fini(&ids);
    return 0;
}
