/* sentencepiece.c - read a tokenizer.model: a protobuf ModelProto of the SentencePiece library.
 *
 * We need about fifteen of its fields, so they are read from the wire format directly: a field is a
 * varint key (number << 3 | wire type), then a varint (0), 8 bytes (1), a length and that many bytes (2) or
 * 4 bytes (5).  Every length is checked against what is left. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/sp_normalizer.h"
#include "text/tokenizer/tokenizer_impl.h"

enum { STRIP_ALL = 255, PIECES_MAX = VOCAB_IDS_MAX };

/* -- the wire ------------------------------------------------------------------------------ */

struct wire {
    const char *s;
    size_t n, at;
    bool failed;
};

struct wire_field {
    uint64_t number;
    unsigned type;
    uint64_t varint;   /* types 0 and 5 */
    const char *bytes; /* type 2: n bytes, borrowed */
    size_t n;
};

static bool fail(struct wire *w)
{
    w->failed = true;
    return false;
}

static bool read_varint(struct wire *w, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned char byte;

        if (w->at == w->n)
            return fail(w);
        byte = (unsigned char)w->s[w->at++];
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return fail(w);
}

static bool read_fixed(struct wire *w, size_t n, uint64_t *v)
{
    if (w->n - w->at < n)
        return fail(w);
    *v = 0;
    for (size_t i = 0; i < n; i++)
        *v |= (uint64_t)(unsigned char)w->s[w->at++] << (8 * i);
    return true;
}

/* The next field; false at the end, and when the bytes are no message (w->failed). */
static bool next_field(struct wire *w, struct wire_field *f)
{
    uint64_t key, n;

    *f = (struct wire_field){ 0 };
    if (w->failed || w->at == w->n || !read_varint(w, &key))
        return false;
    f->number = key >> 3;
    f->type = key & 7;
    switch (f->type) {
    case 0:
        return read_varint(w, &f->varint);
    case 1:
        return read_fixed(w, 8, &f->varint);
    case 2:
        if (!read_varint(w, &n) || n > w->n - w->at)
            return fail(w);
        f->bytes = w->s + w->at;
        f->n = (size_t)n;
        w->at += f->n;
        return true;
    case 5:
        return read_fixed(w, 4, &f->varint);
    default:
        return fail(w);
    }
}

static float as_float(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float v;

    memcpy(&v, &low, sizeof v);
    return v;
}

/* -- the message --------------------------------------------------------------------------- */

enum piece_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };
enum model_type { UNIGRAM = 1, BPE = 2 };

struct piece {
    const char *s;
    size_t n;
    float score;
    uint64_t type;
};

struct span_of_bytes {
    const char *s;
    size_t n;
};

/* What the specs say; the values set before reading are protobuf's defaults. */
struct spec {
    uint64_t model_type;
    bool byte_fallback, whitespace_as_suffix, denormalizes;
    struct span_of_bytes bos, eos, pad, charsmap;
    struct sp_normalizer_options options;
};

static bool read_piece(const struct wire_field *message, struct piece *p)
{
    struct wire w = { .s = message->bytes, .n = message->n };
    struct wire_field f;

    *p = (struct piece){ .type = NORMAL };
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.type == 2) {
            p->s = f.bytes;
            p->n = f.n;
        } else if (f.number == 2 && f.type == 5) {
            p->score = as_float(f.varint);
        } else if (f.number == 3 && f.type == 0) {
            p->type = f.varint;
        }
    }
    return !w.failed;
}

static bool read_trainer_spec(const struct wire_field *message, struct spec *spec)
{
    struct wire w = { .s = message->bytes, .n = message->n };
    struct wire_field f;

    while (next_field(&w, &f)) {
        struct span_of_bytes bytes = { f.bytes, f.n };

        if (f.number == 3 && f.type == 0)
            spec->model_type = f.varint;
        else if (f.number == 24 && f.type == 0)
            spec->whitespace_as_suffix = f.varint != 0;
        else if (f.number == 35 && f.type == 0)
            spec->byte_fallback = f.varint != 0;
        else if (f.number == 46 && f.type == 2)
            spec->bos = bytes;
        else if (f.number == 47 && f.type == 2)
            spec->eos = bytes;
        else if (f.number == 48 && f.type == 2)
            spec->pad = bytes;
    }
    return !w.failed;
}

static bool read_normalizer_spec(const struct wire_field *message, struct spec *spec)
{
    struct wire w = { .s = message->bytes, .n = message->n };
    struct wire_field f;

    while (next_field(&w, &f)) {
        if (f.number == 2 && f.type == 2)
            spec->charsmap = (struct span_of_bytes){ f.bytes, f.n };
        else if (f.number == 3 && f.type == 0)
            spec->options.add_dummy_prefix = f.varint != 0;
        else if (f.number == 4 && f.type == 0)
            spec->options.remove_extra_whitespaces = f.varint != 0;
        else if (f.number == 5 && f.type == 0)
            spec->options.escape_whitespaces = f.varint != 0;
    }
    return !w.failed;
}

static bool read_denormalizer_spec(const struct wire_field *message, struct spec *spec)
{
    struct wire w = { .s = message->bytes, .n = message->n };
    struct wire_field f;

    while (next_field(&w, &f))
        if (f.number == 2 && f.type == 2 && f.n > 0)
            spec->denormalizes = true;
    return !w.failed;
}

/* -- pieces -------------------------------------------------------------------------------- */

static bool flags_of(struct tokenizer *t, const struct piece *p, size_t id, unsigned *flags,
                     struct err *e)
{
    *flags = 0;
    switch (p->type) {
    case NORMAL:
        return true;
    case UNKNOWN:
        if (t->unk_id >= 0)
            return err_set(e, ERR_MODEL, 0, "pieces %d and %zu are both the unknown one", t->unk_id,
                           id);
        t->unk_id = (int32_t)id;
        return true;
    case CONTROL:
        return true; /* becomes a special added token once all pieces are known */
    case USER_DEFINED:
        *flags = VOCAB_USER_DEFINED;
        return true;
    case UNUSED:
        *flags = VOCAB_UNUSED;
        return true;
    case BYTE:
        *flags = VOCAB_BYTE;
        return vocab_byte_of(p->s, p->n) >= 0 ||
               err_set(e, ERR_MODEL, 0, "piece %zu is a byte, but not spelled like one", id);
    default:
        return err_set(e, ERR_MODEL, 0, "piece %zu has type %llu, which is not supported", id,
                       (unsigned long long)p->type);
    }
}

static bool add_piece(struct tokenizer *t, const struct wire_field *message, char **pool,
                      struct err *e)
{
    size_t id = t->vocab.n, bad_at;
    struct vocab_token *token;
    struct piece p;
    unsigned flags;

    if (!read_piece(message, &p))
        return err_set(e, ERR_MODEL, 0, "piece %zu is malformed", id);
    if (p.n == 0 || memchr(p.s, '\0', p.n) || !utf8_is_valid(p.s, p.n, &bad_at))
        return err_set(e, ERR_MODEL, 0, "piece %zu is empty or not UTF-8", id);
    if (!flags_of(t, &p, id, &flags, e))
        return false;
    memcpy(*pool, p.s, p.n);
    (*pool)[p.n] = '\0';
    if (!vocab_put(&t->vocab, (int64_t)id, *pool, p.n, e))
        return false;
    *pool += p.n + 1;
    token = &t->vocab.tokens[id];
    token->score = p.score;
    token->flags = flags;
    if (p.score != p.score)
        return err_set(e, ERR_MODEL, 0, "piece %zu has no score", id);
    if (p.type == CONTROL || p.type == UNKNOWN)
        return tokenizer_add_token(t, token->piece, p.n, (int64_t)id,
                                   (struct added_token){ .special = true }, e);
    return true;
}

static bool read_model(struct tokenizer *t, struct tokenizer_file model, struct spec *spec,
                       struct err *e)
{
    struct wire w = { .s = model.s, .n = model.n };
    struct wire_field f;
    char *pool;

    vocab_init(&t->vocab, model.n / 16);
    pool = t->vocab.pool =
        mem_alloc(model.n + 1); /* a piece and its NUL replace at least as much */
    while (next_field(&w, &f)) {
        bool ok = true;

        if (f.type != 2)
            continue;
        if (f.number == 1 && !add_piece(t, &f, &pool, e))
            return false;
        if (f.number == 2)
            ok = read_trainer_spec(&f, spec);
        else if (f.number == 3)
            ok = read_normalizer_spec(&f, spec);
        else if (f.number == 5)
            ok = read_denormalizer_spec(&f, spec);
        if (!ok)
            return fail(&w) || err_set(e, ERR_MODEL, 0, "a spec is malformed");
    }
    if (w.failed)
        return err_set(e, ERR_MODEL, 0, "not a SentencePiece model: malformed at byte %zu", w.at);
    return t->vocab.n > 0 || err_set(e, ERR_MODEL, 0, "not a SentencePiece model: no pieces");
}

/* -- the whole ----------------------------------------------------------------------------- */

static bool check_spec(const struct tokenizer *t, const struct spec *spec, struct err *e)
{
    if (spec->model_type != BPE && spec->model_type != UNIGRAM)
        return err_set(e, ERR_MODEL, 0, "model_type %llu is not supported (1 is Unigram, 2 BPE)",
                       (unsigned long long)spec->model_type);
    if (spec->whitespace_as_suffix)
        return err_set(e, ERR_MODEL, 0, "treat_whitespace_as_suffix is not supported");
    if (spec->denormalizes)
        return err_set(e, ERR_MODEL, 0, "a denormalizer is not supported");
    if (t->unk_id < 0)
        return err_set(e, ERR_MODEL, 0, "no piece is the unknown one");
    for (size_t id = 0; spec->model_type == BPE && id < t->vocab.n; id++)
        if (t->vocab.tokens[id].flags & VOCAB_UNUSED)
            return err_set(e, ERR_MODEL, 0, "BPE with unused pieces (%zu) is not supported", id);
    return true;
}

static void index_user_defined(struct tokenizer *t)
{
    struct trie_key *keys = mem_alloc(t->vocab.n * sizeof *keys);
    size_t n = 0;

    for (size_t id = 0; id < t->vocab.n; id++) {
        const struct vocab_token *token = &t->vocab.tokens[id];
        if (token->flags & VOCAB_USER_DEFINED)
            keys[n++] = (struct trie_key){ token->piece, token->n_piece, (int32_t)id };
    }
    trie_init(&t->user_defined, keys, n);
    free(keys);
}

static int32_t find_control(const struct tokenizer *t, struct span_of_bytes piece)
{
    int32_t id = vocab_find(&t->vocab, piece.s, piece.n);

    return id >= 0 && t->vocab.tokens[id].flags & VOCAB_SPECIAL ? id : -1;
}

static void init_bpe(struct tokenizer *t, const struct unknown *unknown)
{
    struct bpe *b = &t->bpe;

    t->model = TOKENIZER_BPE;
    b->vocab = &t->vocab;
    b->unknown = *unknown;
    b->frozen = &t->user_defined;
    for (unsigned c = 0; c < 256; c++) {
        char s = (char)c;
        b->symbols[c] = c < 128 ? vocab_find(&t->vocab, &s, 1) : -1;
    }
    bpe_rank_by_score(b);
}

bool tokenizer_load_sentencepiece(struct tokenizer *t, struct tokenizer_file model, struct err *e)
{
    struct spec spec = { .model_type = UNIGRAM,
                         .bos = { "<s>", 3 },
                         .eos = { "</s>", 4 },
                         .pad = { "<pad>", 5 },
                         .options = { true, true, true } };
    struct unknown unknown = { .fuse = true };

    if (!read_model(t, model, &spec, e) || !check_spec(t, &spec, e))
        return false;
    unknown.unk_id = t->unk_id;
    unknown.byte_fallback = spec.byte_fallback;
    if (!vocab_byte_tokens(&t->vocab, unknown.byte_ids) && spec.byte_fallback)
        return err_set(e, ERR_MODEL, 0, "byte_fallback, but not every byte has a piece");
    index_user_defined(t);
    t->normalizer.sentencepiece =
        sp_normalizer_new(spec.options, spec.charsmap.s, spec.charsmap.n, &t->user_defined, e);
    if (!t->normalizer.sentencepiece)
        return false;
    if (spec.model_type == BPE) {
        init_bpe(t, &unknown);
    } else {
        t->model = TOKENIZER_UNIGRAM;
        t->unigram.unknown = unknown;
    }
    t->bos_id = find_control(t, spec.bos);
    t->eos_id = find_control(t, spec.eos);
    t->pad_id = find_control(t, spec.pad);
    token_decoder_init_sentencepiece(&t->decoder, spec.options.remove_extra_whitespaces ? STRIP_ALL
                                                  : spec.options.add_dummy_prefix       ? 1
                                                                                        : 0);
    return true;
}
