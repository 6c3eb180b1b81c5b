/* tokenizer_gguf.c - the tokenizer in the metadata of a GGUF file, as the files that a HuggingFace directory of the
 * same model has: a tokenizer.model or a tokenizer.json, and a tokenizer_config.json.  So a model has the same ids
 * whichever way it came, and there is one place for each rule.
 *
 * Keys are those of the specification (docs/gguf.md of ggml).  "llama" vocabularies are SentencePiece BPE by
 * score, with the same kinds of pieces under the same numbers; "gpt2" ones are byte-level BPE, and only name how a
 * text is cut into words (tokenizer.ggml.pre): the names below stand for what the published tokenizer.json of
 * those models says. */
#include <string.h>

#include "common/gguf.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/tokenizer_impl.h"

enum token_kind { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

/* -- the lists ----------------------------------------------------------------------------- */

struct vocabulary {
    struct gguf_array tokens, kinds; /* of one length, strings and integers */
    struct gguf_array scores;        /* SentencePiece only */
    int64_t unknown_id;              /* the same; -1: the kinds say it */
};

static bool open_list(const struct gguf *g, const char *key, uint64_t n, struct gguf_array *list,
                      struct err *e)
{
    if (!gguf_array(g, key, list, e))
        return false;
    return list->n == n || err_set(e, ERR_MODEL, 0, "key '%s' has %llu entries for %llu tokens",
                                   key, (unsigned long long)list->n, (unsigned long long)n);
}

static bool open_vocabulary(const struct gguf *g, struct vocabulary *v, struct err *e)
{
    if (!gguf_array(g, "tokenizer.ggml.tokens", &v->tokens, e))
        return false;
    if (v->tokens.of != GGUF_STRING || v->tokens.n == 0 || v->tokens.n > VOCAB_IDS_MAX)
        return err_set(
            e, ERR_MODEL, 0, "key 'tokenizer.ggml.tokens' has %llu %s; wanted 1..%d strings",
            (unsigned long long)v->tokens.n, gguf_type_name(v->tokens.of), VOCAB_IDS_MAX);
    return open_list(g, "tokenizer.ggml.token_type", v->tokens.n, &v->kinds, e);
}

struct token {
    int64_t id, kind;
    struct gguf_string s;
};

/* Token `id`, which comes after id - 1. */
static bool next_token(struct vocabulary *v, int64_t id, struct token *t, struct err *e)
{
    size_t bad_at;

    t->id = id;
    t->s = gguf_array_next(&v->tokens);
    if (!gguf_array_integer(&v->kinds, (uint64_t)id, &t->kind) || t->kind < NORMAL ||
        t->kind > BYTE)
        return err_set(e, ERR_MODEL, 0, "token %lld is of no kind that is known", (long long)id);
    return utf8_is_valid(t->s.s, t->s.n, &bad_at) ||
           err_set(e, ERR_MODEL, 0, "token %lld is not UTF-8", (long long)id);
}

static bool bool_or(const struct gguf *g, const char *key, bool absent, bool *v, struct err *e)
{
    *v = absent;
    return !gguf_has(g, key) || gguf_bool(g, key, v, e);
}

/* -- tokenizer.model ----------------------------------------------------------------------- */

static void add_varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_add_char(b, (char)(v | 0x80));
    buf_add_char(b, (char)v);
}

static void add_number(struct buf *b, unsigned field, uint64_t v)
{
    add_varint(b, field << 3);
    add_varint(b, v);
}

static void add_bytes(struct buf *b, unsigned field, const char *s, size_t n)
{
    add_varint(b, field << 3 | 2);
    add_varint(b, n);
    buf_add(b, s, n);
}

static void add_float(struct buf *b, unsigned field, float v)
{
    add_varint(b, field << 3 | 5);
    buf_add(b, &v, sizeof v);
}

/* Unused ones are padding: as control tokens they are never the reading of a text, and never shown.  The unknown
 * token may be a control token by its kind. */
static uint64_t piece_type(const struct vocabulary *v, const struct token *t)
{
    if (t->kind == UNUSED)
        return CONTROL;
    return t->kind == CONTROL && t->id == v->unknown_id ? UNKNOWN : (uint64_t)t->kind;
}

static bool add_piece(struct buf *out, struct buf *piece, const struct vocabulary *v,
                      const struct token *t, struct err *e)
{
    double score;

    if (!gguf_array_number(&v->scores, (uint64_t)t->id, &score))
        return err_set(e, ERR_MODEL, 0, "token %lld has no score", (long long)t->id);
    buf_clear(piece);
    add_bytes(piece, 1, t->s.s, t->s.n);
    add_float(piece, 2, (float)score);
    add_number(piece, 3, piece_type(v, t));
    add_bytes(out, 1, piece->data, piece->n);
    return true;
}

static bool add_pieces(struct buf *out, struct vocabulary *v, bool *has_bytes, struct err *e)
{
    struct buf piece = { 0 };
    struct token t;
    bool ok = true;

    for (int64_t id = 0; ok && v->tokens.n > 0; id++) {
        ok = next_token(v, id, &t, e) && add_piece(out, &piece, v, &t, e);
        *has_bytes |= t.kind == BYTE;
    }
    buf_fini(&piece);
    return ok;
}

static void add_specs(struct buf *out, bool has_bytes, bool add_prefix, bool remove_spaces)
{
    struct buf spec = { 0 };

    add_number(&spec, 3, 2); /* BPE */
    add_number(&spec, 35, has_bytes);
    add_bytes(out, 2, spec.data, spec.n);
    buf_clear(&spec);
    add_number(&spec, 3, add_prefix);
    add_number(&spec, 4, remove_spaces);
    add_number(&spec, 5, 1); /* spaces become U+2581 */
    add_bytes(out, 3, spec.data, spec.n);
    buf_fini(&spec);
}

static bool write_model(const struct gguf *g, struct buf *out, struct err *e)
{
    bool has_bytes = false, add_prefix, remove_spaces;
    struct vocabulary v = { .unknown_id = -1 };

    if (!open_vocabulary(g, &v, e) ||
        (gguf_has(g, "tokenizer.ggml.unknown_token_id") &&
         !gguf_integer(g, "tokenizer.ggml.unknown_token_id", &v.unknown_id, e)) ||
        !open_list(g, "tokenizer.ggml.scores", v.tokens.n, &v.scores, e) ||
        !bool_or(g, "tokenizer.ggml.add_space_prefix", true, &add_prefix, e) ||
        !bool_or(g, "tokenizer.ggml.remove_extra_whitespaces", false, &remove_spaces, e) ||
        !add_pieces(out, &v, &has_bytes, e))
        return false;
    add_specs(out, has_bytes, add_prefix, remove_spaces);
    return true;
}

/* -- tokenizer.json ------------------------------------------------------------------------ */

#define SUFFIXES "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* Words of letters, numbers of so many digits, the rest. */
#define WORDS(digits)                                                                              \
    SUFFIXES "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits "| "                                   \
             "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST
/* The same, and a word begins where small letters turn to capital ones. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffixes, digits)                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffixes "|[^\\r\\n\\p{L}\\p{N}]?" UPPER          \
    "+" LOWER "*" suffixes "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST

enum { PATTERNS_MAX = 5 };

/* How a text is cut: each pattern isolates what it matches, one after the other. */
struct pre {
    const char *name;
    const char *patterns[PATTERNS_MAX]; /* up to the first NULL */
    bool single_digits, gpt2;           /* then digits on their own, then GPT-2's pattern */
    bool nfc, ignore_merges, add_bos;
};

static const struct pre pres[] = {
    { "gpt-2", .gpt2 = true },
    { "llama-bpe", .patterns = { WORDS("{1,3}") }, .ignore_merges = true, .add_bos = true },
    { "llama3", .patterns = { WORDS("{1,3}") }, .ignore_merges = true, .add_bos = true },
    { "llama-v3", .patterns = { WORDS("{1,3}") }, .ignore_merges = true, .add_bos = true },
    { "dbrx", .patterns = { WORDS("{1,3}") } },
    { "smaug-bpe", .patterns = { WORDS("{1,3}") } },
    { "qwen2", .patterns = { WORDS("") }, .nfc = true },
    { "deepseek-r1-qwen", .patterns = { WORDS("") } },
    { "tekken", .patterns = { CASED("", "") }, .ignore_merges = true, .add_bos = true },
    { "gpt-4o", .patterns = { CASED(SUFFIXES "?", "{1,3}") } },
    { "deepseek-v3", .patterns = { "\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                                   "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                                   "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
                                   "?[\\p{P}\\p{S}]+[\\r\\n]*|" REST } },
    { "deepseek-coder", .patterns = { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                                      "[一-龥ࠀ-一가-퟿]+", "\\p{N}" } },
    { "smollm", .single_digits = true, .gpt2 = true },
    { "starcoder", .single_digits = true, .gpt2 = true },
    { "command-r", .single_digits = true, .gpt2 = true, .nfc = true },
};

const char *tokenizer_gguf_pre(size_t i)
{
    return i < sizeof pres / sizeof *pres ? pres[i].name : NULL;
}

static const struct pre *find_pre(const struct gguf *g, struct err *e)
{
    struct gguf_string name;

    if (!gguf_string(g, "tokenizer.ggml.pre", &name, e))
        return NULL;
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (gguf_string_is(name, pres[i].name))
            return &pres[i];
    err_set(e, ERR_MODEL, 0, "how '%.*s' cuts a text into words (tokenizer.ggml.pre) is not known",
            (int)(name.n > 60 ? 60 : name.n), name.s);
    return NULL;
}

static void put_byte_level(struct json_writer *w, bool use_regex)
{
    jw_object(w);
    jw_key(w, "type");
    jw_str(w, "ByteLevel");
    jw_key(w, "add_prefix_space");
    jw_bool(w, false);
    jw_key(w, "use_regex");
    jw_bool(w, use_regex);
    jw_object_end(w);
}

static void put_split(struct json_writer *w, const char *regex)
{
    jw_object(w);
    jw_key(w, "type");
    jw_str(w, "Split");
    jw_key(w, "behavior");
    jw_str(w, "Isolated");
    jw_key(w, "pattern");
    jw_object(w);
    jw_key(w, "Regex");
    jw_str(w, regex);
    jw_object_end(w);
    jw_object_end(w);
}

static void put_pre_tokenizer(struct json_writer *w, const struct pre *pre)
{
    jw_object(w);
    jw_key(w, "type");
    jw_str(w, "Sequence");
    jw_key(w, "pretokenizers");
    jw_array(w);
    for (int i = 0; i < PATTERNS_MAX && pre->patterns[i]; i++)
        put_split(w, pre->patterns[i]);
    if (pre->single_digits) {
        jw_object(w);
        jw_key(w, "type");
        jw_str(w, "Digits");
        jw_key(w, "individual_digits");
        jw_bool(w, true);
        jw_object_end(w);
    }
    put_byte_level(w, pre->gpt2);
    jw_array_end(w);
    jw_object_end(w);
}

static void put_normalizer(struct json_writer *w, const struct pre *pre)
{
    if (!pre->nfc) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "type");
    jw_str(w, "NFC");
    jw_object_end(w);
}

static void put_added(struct json_writer *w, const struct token *t)
{
    jw_object(w);
    jw_key(w, "id");
    jw_int(w, t->id);
    jw_key(w, "content");
    jw_strn(w, t->s.s, t->s.n);
    jw_key(w, "special");
    jw_bool(w, t->kind != USER_DEFINED);
    jw_key(w, "normalized");
    jw_bool(w, false);
    jw_object_end(w);
}

static bool put_vocab(struct json_writer *w, struct vocabulary v, struct err *e)
{
    struct buf spelling = { 0 };
    struct token t;
    bool ok = true;

    jw_object(w);
    for (int64_t id = 0; ok && v.tokens.n > 0; id++) {
        ok = next_token(&v, id, &t, e);
        if (!ok || t.kind == UNUSED) /* padding */
            continue;
        if (memchr(t.s.s, '\0', t.s.n))
            ok = err_set(e, ERR_MODEL, 0, "token %lld has a NUL", (long long)id);
        buf_clear(&spelling);
        buf_add(&spelling, t.s.s, t.s.n);
        jw_key(w, spelling.data);
        jw_int(w, id);
    }
    jw_object_end(w);
    buf_fini(&spelling);
    return ok;
}

static bool put_all_added(struct json_writer *w, struct vocabulary v, struct err *e)
{
    struct token t;

    jw_array(w);
    for (int64_t id = 0; v.tokens.n > 0; id++) {
        if (!next_token(&v, id, &t, e))
            return false;
        if (t.kind == CONTROL || t.kind == UNKNOWN || t.kind == USER_DEFINED)
            put_added(w, &t);
    }
    jw_array_end(w);
    return true;
}

static bool put_merges(struct json_writer *w, const struct gguf *g, struct err *e)
{
    struct gguf_array merges;
    size_t bad_at;

    if (!gguf_array(g, "tokenizer.ggml.merges", &merges, e))
        return false;
    if (merges.of != GGUF_STRING)
        return err_set(e, ERR_MODEL, 0, "key 'tokenizer.ggml.merges' has %s; wanted string",
                       gguf_type_name(merges.of));
    jw_array(w);
    while (merges.n > 0) {
        struct gguf_string s = gguf_array_next(&merges);
        if (!utf8_is_valid(s.s, s.n, &bad_at))
            return err_set(e, ERR_MODEL, 0, "key 'tokenizer.ggml.merges' is not UTF-8");
        jw_strn(w, s.s, s.n);
    }
    jw_array_end(w);
    return true;
}

static bool put_model(struct json_writer *w, const struct gguf *g, const struct pre *pre,
                      const struct vocabulary *v, struct err *e)
{
    jw_object(w);
    jw_key(w, "type");
    jw_str(w, "BPE");
    jw_key(w, "ignore_merges");
    jw_bool(w, pre->ignore_merges);
    jw_key(w, "vocab");
    if (!put_vocab(w, *v, e))
        return false;
    jw_key(w, "merges");
    if (!put_merges(w, g, e))
        return false;
    jw_object_end(w);
    return true;
}

static bool write_json(const struct gguf *g, const struct pre *pre, struct buf *out, struct err *e)
{
    struct json_writer w = { .out = out };
    struct vocabulary v;

    if (!open_vocabulary(g, &v, e))
        return false;
    jw_object(&w);
    jw_key(&w, "normalizer");
    put_normalizer(&w, pre);
    jw_key(&w, "pre_tokenizer");
    put_pre_tokenizer(&w, pre);
    jw_key(&w, "decoder");
    put_byte_level(&w, false);
    jw_key(&w, "added_tokens");
    if (!put_all_added(&w, v, e))
        return false;
    jw_key(&w, "model");
    if (!put_model(&w, g, pre, &v, e))
        return false;
    jw_object_end(&w);
    return true;
}

/* -- tokenizer_config.json ----------------------------------------------------------------- */

/* The token that a key names by its id. */
static bool put_special(const struct gguf *g, const char *key, const char *field,
                        struct json_writer *w, struct err *e)
{
    struct gguf_array tokens;
    struct gguf_string s = { 0 };
    int64_t id;

    if (!gguf_has(g, key))
        return true;
    if (!gguf_integer(g, key, &id, e) || !gguf_array(g, "tokenizer.ggml.tokens", &tokens, e))
        return false;
    if (id == UINT32_MAX || id == -1) /* none, as some files say it */
        return true;
    if (id < 0 || (uint64_t)id >= tokens.n)
        return err_set(e, ERR_MODEL, 0, "key '%s' is %lld; there are %llu tokens", key,
                       (long long)id, (unsigned long long)tokens.n);
    for (int64_t i = 0; i <= id; i++)
        s = gguf_array_next(&tokens);
    jw_key(w, field);
    jw_strn(w, s.s, s.n);
    return true;
}

static bool put_switch(const struct gguf *g, const char *key, const char *field, bool absent,
                       struct json_writer *w, struct err *e)
{
    bool v;

    if (!bool_or(g, key, absent, &v, e))
        return false;
    jw_key(w, field);
    jw_bool(w, v);
    return true;
}

static bool is_phi3(const struct gguf *g)
{
    struct gguf_string arch;

    return gguf_string(g, "general.architecture", &arch, NULL) && gguf_string_is(arch, "phi3");
}

/* Phi-3's control tokens take the white space behind them, but for those that begin or end a text; GGUF has no
 * key for that. */
static bool takes_space(const struct token *t)
{
    return t->kind == CONTROL && !gguf_string_is(t->s, "<s>") &&
           !gguf_string_is(t->s, "<|endoftext|>");
}

static bool put_strips(const struct gguf *g, struct json_writer *w, struct err *e)
{
    struct vocabulary v;
    struct token t;
    char key[24];

    if (!is_phi3(g))
        return true;
    if (!open_vocabulary(g, &v, e))
        return false;
    jw_key(w, "added_tokens_decoder");
    jw_object(w);
    for (int64_t id = 0; v.tokens.n > 0; id++) {
        if (!next_token(&v, id, &t, e))
            return false;
        if (!takes_space(&t))
            continue;
        snprintf(key, sizeof key, "%lld", (long long)id);
        jw_key(w, key);
        jw_object(w);
        jw_key(w, "content");
        jw_strn(w, t.s.s, t.s.n);
        jw_key(w, "special");
        jw_bool(w, true);
        jw_key(w, "rstrip");
        jw_bool(w, true);
        jw_object_end(w);
    }
    jw_object_end(w);
    return true;
}

static bool write_config(const struct gguf *g, bool add_bos, bool with_strips, struct buf *out,
                         struct err *e)
{
    struct json_writer w = { .out = out };
    bool ok;

    jw_object(&w);
    jw_key(&w, "tokenizer_class"); /* one whose switches decide */
    jw_str(&w, "LlamaTokenizer");
    ok = put_special(g, "tokenizer.ggml.bos_token_id", "bos_token", &w, e) &&
         put_special(g, "tokenizer.ggml.eos_token_id", "eos_token", &w, e) &&
         put_special(g, "tokenizer.ggml.unknown_token_id", "unk_token", &w, e) &&
         put_special(g, "tokenizer.ggml.padding_token_id", "pad_token", &w, e) &&
         put_switch(g, "tokenizer.ggml.add_bos_token", "add_bos_token", add_bos, &w, e) &&
         put_switch(g, "tokenizer.ggml.add_eos_token", "add_eos_token", false, &w, e) &&
         (!with_strips || put_strips(g, &w, e));
    jw_object_end(&w);
    return ok;
}

/* -- the whole ----------------------------------------------------------------------------- */

static struct tokenizer_file file_of(struct buf *b)
{
    size_t n = b->n;

    return (struct tokenizer_file){ buf_take(b), n };
}

bool tokenizer_gguf_files(const struct gguf *g, struct tokenizer_files *files, struct err *e)
{
    struct buf main = { 0 }, config = { 0 };
    const struct pre *pre;
    struct gguf_string model;
    bool ok = false, sentencepiece;

    if (!gguf_string(g, "tokenizer.ggml.model", &model, e))
        return false;
    sentencepiece = gguf_string_is(model, "llama");
    if (sentencepiece)
        ok = write_model(g, &main, e) && write_config(g, true, true, &config, e);
    else if (gguf_string_is(model, "gpt2"))
        ok = (pre = find_pre(g, e)) && write_json(g, pre, &main, e) &&
             write_config(g, pre->add_bos, false, &config, e);
    else
        err_set(e, ERR_MODEL, 0, "tokenizer.ggml.model '%.*s' is not supported (llama, gpt2)",
                (int)(model.n > 60 ? 60 : model.n), model.s);
    if (ok) {
        *(sentencepiece ? &files->model : &files->json) = file_of(&main);
        files->config = file_of(&config);
    }
    buf_fini(&main);
    buf_fini(&config);
    return ok;
}
