/* tokenizer_json.c - read a tokenizer.json.
 *
 * One pass cuts the text into its members.  The two large ones, vocab and merges, are then walked in
 * place (json_scan.h); the others are small and become jansson trees.  Their order in the file does not
 * matter. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "text/json_cut.h"
#include "text/tokenizer/byte_map.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/tokenizer_impl.h"

enum { VOCAB_ENTRY_BYTES = 20 /* about, to guess how many there are */ };

/* The members of the file ... */
enum { ADDED_TOKENS, NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, MODEL, N_TOP };
/* ... and of its "model". */
enum { VOCAB, MERGES, FIRST_SWITCH, N_MODEL = FIRST_SWITCH + 8 };

struct members {
    struct json_member top[N_TOP], model[N_MODEL];
    json_t *switches; /* those of model[] from FIRST_SWITCH on */
};

static bool cut_members(struct members *m, struct tokenizer_file json, struct err *e)
{
    static const char *const top[] = { "added_tokens",   "normalizer", "pre_tokenizer",
                                       "post_processor", "decoder",    "model" };
    static const char *const model[] = { "vocab",         "merges",
                                         "type",          "unk_token",
                                         "fuse_unk",      "byte_fallback",
                                         "ignore_merges", "continuing_subword_prefix",
                                         "dropout",       "end_of_word_suffix" };

    for (size_t i = 0; i < N_TOP; i++)
        m->top[i].key = top[i];
    for (size_t i = 0; i < N_MODEL; i++)
        m->model[i].key = model[i];
    if (!json_cut(json.s, json.n, m->top, N_TOP, e))
        return false;
    if (!m->top[MODEL].value.s)
        return err_set(e, ERR_MODEL, 0, "no member 'model'");
    if (!json_cut(m->top[MODEL].value.s, m->top[MODEL].value.n, m->model, N_MODEL, e))
        return err_wrap(e, "model");
    if (!m->model[VOCAB].value.s || !m->model[MERGES].value.s)
        return err_set(e, ERR_MODEL, 0, "model: no 'vocab' or no 'merges' (is it BPE?)");
    m->switches = json_object();
    for (size_t i = FIRST_SWITCH; i < N_MODEL; i++) {
        json_t *v;
        if (!json_cut_parse(&m->model[i], &v, e))
            return err_wrap(e, "model");
        if (v)
            json_object_set_new(m->switches, m->model[i].key, v);
    }
    return true;
}

/* -- vocabulary and merges ----------------------------------------------------------------- */

static bool load_vocab(struct vocab *v, struct json_slice slice, struct err *e)
{
    struct json_scan j;
    size_t used = 0, n;
    int64_t id;

    vocab_init(v, slice.n / VOCAB_ENTRY_BYTES);
    v->pool = mem_alloc(slice.n); /* a string and its NUL are never longer than it is in quotes */
    json_scan_init(&j, slice.s, slice.n, e);
    json_scan_object(&j);
    while (json_scan_key(&j, v->pool + used, slice.n - used, &n) && json_scan_int(&j, &id)) {
        if (!vocab_put(v, id, v->pool + used, n, e))
            return false;
        used += n + 1;
    }
    return json_scan_end(&j);
}

/* The two pieces of one merge, into pair[0..n_left + n_right), joined. */
static bool scan_pair(struct json_scan *j, char *pair, size_t *n_left, size_t *n_right)
{
    size_t n;
    char *space;

    if (json_scan_peek(j) == '[') {
        if (!json_scan_array(j) || !json_scan_item(j) ||
            !json_scan_string(j, pair, PIECE_BYTES_MAX, n_left) || !json_scan_item(j) ||
            !json_scan_string(j, pair + *n_left, PIECE_BYTES_MAX, n_right))
            return json_scan_fail(j, "two strings expected");
        if (json_scan_item(j))
            return json_scan_fail(j, "a merge of more than two");
        return json_scan_ok(j);
    }
    if (!json_scan_string(j, pair, 2 * PIECE_BYTES_MAX, &n))
        return false;
    space = memchr(pair, ' ', n);
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - pair)))
        return json_scan_fail(j, "a merge is two pieces with one space between them");
    *n_left = (size_t)(space - pair);
    *n_right = n - *n_left - 1;
    memmove(space, space + 1, *n_right);
    return true;
}

static bool add_merge(struct bpe *b, const struct vocab *v, const char *pair, size_t n_left,
                      size_t n_right, size_t rank, struct err *e)
{
    struct bpe_merge merge = { .left = vocab_find(v, pair, n_left),
                               .right = vocab_find(v, pair + n_left, n_right),
                               .rank = (uint32_t)rank,
                               .id = vocab_find(v, pair, n_left + n_right) };

    if (merge.left < 0 || merge.right < 0 || merge.id < 0)
        return err_set(e, ERR_MODEL, 0,
                       "merge %zu: '%.*s' and '%.*s' or what they make is not in the vocabulary",
                       rank, (int)(n_left > 40 ? 40 : n_left), pair,
                       (int)(n_right > 40 ? 40 : n_right), pair + n_left);
    bpe_merges_add(b, merge);
    return true;
}

static size_t count_items(struct json_slice slice)
{
    size_t quotes = 0;

    for (size_t i = 0; i < slice.n; i++)
        quotes += slice.s[i] == '"';
    return quotes / 2; /* at least the number of merges */
}

static bool load_merges(struct bpe *b, const struct vocab *v, struct json_slice slice,
                        struct err *e)
{
    char *pair = mem_alloc(2 * PIECE_BYTES_MAX + 2);
    size_t n_left, n_right, rank = 0;
    struct json_scan j;
    bool ok = true;

    bpe_merges_init(b, count_items(slice));
    json_scan_init(&j, slice.s, slice.n, e);
    json_scan_array(&j);
    while (ok && json_scan_item(&j) && scan_pair(&j, pair, &n_left, &n_right))
        ok = add_merge(b, v, pair, n_left, n_right, rank++, e);
    free(pair);
    return ok && json_scan_end(&j);
}

/* -- the model's switches ------------------------------------------------------------------ */

static bool refuse_affixes(const json_t *small, struct err *e)
{
    static const char *const keys[] = { "continuing_subword_prefix", "end_of_word_suffix" };

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *s;
        size_t n;

        if (!json_field_str(small, keys[i], &s, &n, e))
            return false;
        if (n > 0)
            return err_set(e, ERR_MODEL, 0, "%s '%.40s' is not supported", keys[i], s);
    }
    return true;
}

static bool load_switches(struct tokenizer *t, const json_t *small, struct err *e)
{
    struct bpe *b = &t->bpe;
    const char *type, *unk;
    size_t n_type, n_unk;

    if (!json_field_str(small, "type", &type, &n_type, e) ||
        !json_field_str(small, "unk_token", &unk, &n_unk, e) ||
        !json_field_bool(small, "fuse_unk", false, &b->unknown.fuse, e) ||
        !json_field_bool(small, "byte_fallback", false, &b->unknown.byte_fallback, e) ||
        !json_field_bool(small, "ignore_merges", false, &b->ignore_merges, e) ||
        !refuse_affixes(small, e))
        return false;
    if (type && strcmp(type, "BPE") != 0) /* old files do not say */
        return err_set(e, ERR_MODEL, 0, "type '%.40s' is not supported", type);
    if (json_number_value(json_object_get(small, "dropout")) != 0)
        return err_set(e, ERR_MODEL, 0, "'dropout' is not supported");
    b->unknown.unk_id = unk ? vocab_find(&t->vocab, unk, n_unk) : -1;
    if (unk && b->unknown.unk_id < 0)
        return err_set(e, ERR_MODEL, 0, "unk_token '%.40s' is not in the vocabulary", unk);
    t->unk_id = b->unknown.unk_id;
    return true;
}

/* -- symbols ------------------------------------------------------------------------------- */

/* Can this byte be part of UTF-8? */
static bool occurs(unsigned byte)
{
    return byte != 0xc0 && byte != 0xc1 && byte < 0xf5;
}

/* The token of each single byte, by what GPT-2's alphabet makes of it. */
static bool find_byte_symbols(struct tokenizer *t, struct err *e)
{
    struct bpe *b = &t->bpe;

    for (size_t id = 0; id < t->vocab.n; id++) {
        const struct vocab_token *token = &t->vocab.tokens[id];
        char byte[2];
        size_t n;

        if (token->piece && token->n_piece <= 2 && !(token->flags & VOCAB_SPECIAL) &&
            byte_map_undo(token->piece, token->n_piece, byte, &n) && n == 1)
            b->symbols[(unsigned char)byte[0]] = (int32_t)id;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        if (b->symbols[byte] >= 0 || !occurs(byte))
            continue;
        if (b->unknown.unk_id < 0)
            return err_set(e, ERR_MODEL, 0, "model: no token for byte 0x%02x and no unk_token",
                           byte);
        b->symbols[byte] = b->unknown.unk_id;
    }
    return true;
}

static void index_words(struct tokenizer *t)
{
    char *bytes = mem_alloc(PIECE_BYTES_MAX);

    strmap_init(&t->bpe.words, t->vocab.n);
    for (size_t id = 0; id < t->vocab.n; id++) {
        const struct vocab_token *token = &t->vocab.tokens[id];
        size_t n;

        if (token->piece && !(token->flags & VOCAB_SPECIAL) &&
            byte_map_undo(token->piece, token->n_piece, bytes, &n)) {
            char *key = arena_strndup(&t->vocab.strings, bytes, n);
            strmap_add(&t->bpe.words, key, n, (int32_t)id);
        }
    }
    free(bytes);
}

static void find_ascii_symbols(struct tokenizer *t)
{
    for (unsigned c = 0; c < 128; c++) {
        char s = (char)c;
        int32_t id = vocab_find(&t->vocab, &s, 1);

        if (id >= 0 && !(t->vocab.tokens[id].flags & VOCAB_SPECIAL))
            t->bpe.symbols[c] = id;
    }
}

static bool find_symbols(struct tokenizer *t, struct err *e)
{
    struct bpe *b = &t->bpe;
    bool all_bytes;

    b->byte_level = t->pre_tokenizer.byte_level;
    for (unsigned i = 0; i < 256; i++)
        b->symbols[i] = -1;
    if (b->byte_level) {
        if (b->ignore_merges)
            index_words(t);
        return find_byte_symbols(t, e);
    }
    find_ascii_symbols(t);
    all_bytes = vocab_byte_tokens(&t->vocab, b->unknown.byte_ids);
    if (b->unknown.unk_id < 0 && !(b->unknown.byte_fallback && all_bytes))
        return err_set(e, ERR_MODEL, 0,
                       "model: no unk_token, and not all bytes have a token to fall back to");
    return true;
}

/* -- the whole ----------------------------------------------------------------------------- */

static bool load_added_token(struct tokenizer *t, const json_t *json, struct err *e)
{
    const json_t *id = json_object_get(json, "id");
    struct added_token flags;
    const char *content;
    size_t n;

    if (!json_field_need_str(json, "content", &content, &n, e) ||
        !added_token_load_flags(&flags, json, e))
        return false;
    if (!json_is_integer(id))
        return err_set(e, ERR_MODEL, 0, "'%.40s' has no 'id'", content);
    return tokenizer_add_token(t, content, n, json_integer_value(id), flags, e);
}

static bool load_added_tokens(struct tokenizer *t, const json_t *list, struct err *e)
{
    const json_t *item;
    size_t i;

    if (list && !json_is_array(list))
        return err_set(e, ERR_MODEL, 0, "added_tokens is not a list");
    json_array_foreach (list, i, item) {
        if (!load_added_token(t, item, e))
            return err_wrap(e, "added_tokens[%zu]", i);
    }
    return true;
}

static bool load_normalizer(struct tokenizer *t, const json_t *json, struct err *e)
{
    return normalizer_load(&t->normalizer, json, e);
}

static bool load_pre_tokenizer(struct tokenizer *t, const json_t *json, struct err *e)
{
    return pre_tokenizer_load(&t->pre_tokenizer, json, e);
}

static bool load_post_processor(struct tokenizer *t, const json_t *json, struct err *e)
{
    return post_processor_load(&t->post_processor, json, e);
}

static bool load_decoder(struct tokenizer *t, const json_t *json, struct err *e)
{
    return token_decoder_load(&t->decoder, json, e);
}

static bool load_small_members(struct tokenizer *t, const struct members *m, struct err *e)
{
    static bool (*const loaders[])(struct tokenizer *, const json_t *, struct err *) = {
        [ADDED_TOKENS] = load_added_tokens,
        [NORMALIZER] = load_normalizer,
        [PRE_TOKENIZER] = load_pre_tokenizer,
        [POST_PROCESSOR] = load_post_processor,
        [DECODER] = load_decoder,
    };

    for (size_t i = 0; i < sizeof loaders / sizeof *loaders; i++) {
        json_t *json;
        bool ok = json_cut_parse(&m->top[i], &json, e) && loaders[i](t, json, e);

        json_decref(json);
        if (!ok)
            return false;
    }
    return true;
}

static bool load_members(struct tokenizer *t, const struct members *m, struct err *e)
{
    t->model = TOKENIZER_BPE;
    t->bpe.vocab = &t->vocab;
    if (!load_vocab(&t->vocab, m->model[VOCAB].value, e))
        return err_wrap(e, "model.vocab");
    if (!load_small_members(t, m, e))
        return false;
    if (!load_switches(t, m->switches, e) ||
        !load_merges(&t->bpe, &t->vocab, m->model[MERGES].value, e))
        return err_wrap(e, "model");
    return find_symbols(t, e);
}

bool tokenizer_load_json(struct tokenizer *t, struct tokenizer_file json, struct err *e)
{
    struct members m = { 0 };
    bool ok = cut_members(&m, json, e) && load_members(t, &m, e);

    json_decref(m.switches);
    return ok;
}
