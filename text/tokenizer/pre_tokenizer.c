/* pre_tokenizer.c - the stages: Split, Digits, Metaspace, ByteLevel.
 *
 * Each piece goes down all stages before the next piece is cut, so no list of pieces is ever made.
 * Stages that put something into the text (Metaspace, ByteLevel's prefix) write to their own
 * buffer, which stays as it is until that stage gets its next piece. */
#include "text/tokenizer/pre_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/unicode.h"

/* Radford et al. 2019: GPT-2's words. */
#define GPT2_WORDS                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

enum stage_kind { STAGE_SPLIT, STAGE_DIGITS, STAGE_METASPACE, STAGE_BYTE_LEVEL };

/* What becomes of a match: see struct cutter. */
enum behavior { ISOLATED, REMOVED, CONTIGUOUS, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT };

enum prefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };

struct pre_stage {
    enum stage_kind kind;
    struct pattern pattern; /* STAGE_SPLIT; STAGE_BYTE_LEVEL when it splits */
    enum behavior behavior;
    bool invert;        /* matches are what the pattern does not match */
    bool splits;        /* STAGE_METASPACE, STAGE_BYTE_LEVEL */
    enum prefix prefix; /* put a space (STAGE_METASPACE: `mark`) before a piece without one */
    char mark[8];       /* STAGE_METASPACE: stands for a space; a NUL follows */
};

/* -- loading ------------------------------------------------------------------------------- */

static bool load_split(struct pre_stage *stage, const json_t *json, struct err *e)
{
    static const char *const names[] = { [ISOLATED] = "Isolated",
                                         [REMOVED] = "Removed",
                                         [CONTIGUOUS] = "Contiguous",
                                         [MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                         [MERGED_WITH_NEXT] = "MergedWithNext" };
    const char *behavior;
    size_t n;

    stage->kind = STAGE_SPLIT;
    if (!pattern_load(&stage->pattern, json_object_get(json, "pattern"), e) ||
        !json_field_bool(json, "invert", false, &stage->invert, e) ||
        !json_field_need_str(json, "behavior", &behavior, &n, e))
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(behavior, names[i]) == 0) {
            stage->behavior = (enum behavior)i;
            return true;
        }
    return err_set(e, ERR_MODEL, 0, "behavior '%s' is not supported", behavior);
}

static bool load_digits(struct pre_stage *stage, const json_t *json, struct err *e)
{
    bool individual;

    stage->kind = STAGE_DIGITS;
    if (!json_field_bool(json, "individual_digits", false, &individual, e))
        return false;
    stage->behavior = individual ? ISOLATED : CONTIGUOUS;
    return true;
}

/* Files before 2024 have add_prefix_space where later ones have prepend_scheme. */
static bool load_metaspace(struct pre_stage *stage, const json_t *json, struct err *e)
{
    const char *mark, *scheme;
    size_t n_mark, n_scheme;
    bool add;

    stage->kind = STAGE_METASPACE;
    if (!json_field_need_str(json, "replacement", &mark, &n_mark, e) ||
        !json_field_str(json, "prepend_scheme", &scheme, &n_scheme, e) ||
        !json_field_bool(json, "add_prefix_space", true, &add, e) ||
        !json_field_bool(json, "split", true, &stage->splits, e))
        return false;
    if (n_mark == 0 || n_mark != utf8_length(mark[0]))
        return err_set(e, ERR_MODEL, 0, "replacement '%.20s' is not one character", mark);
    memcpy(stage->mark, mark, n_mark);
    if (!scheme)
        stage->prefix = add ? PREFIX_ALWAYS : PREFIX_NEVER;
    else if (strcmp(scheme, "always") == 0)
        stage->prefix = PREFIX_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        stage->prefix = PREFIX_FIRST;
    else if (strcmp(scheme, "never") == 0)
        stage->prefix = PREFIX_NEVER;
    else
        return err_set(e, ERR_MODEL, 0, "prepend_scheme '%s' is not supported", scheme);
    return true;
}

static bool load_byte_level(struct pre_stage *stage, const json_t *json, struct err *e)
{
    bool add;

    stage->kind = STAGE_BYTE_LEVEL;
    if (!json_field_bool(json, "add_prefix_space", true, &add, e) ||
        !json_field_bool(json, "use_regex", true, &stage->splits, e))
        return false;
    stage->prefix = add ? PREFIX_ALWAYS : PREFIX_NEVER;
    return !stage->splits || pattern_init_regex(&stage->pattern, GPT2_WORDS, e);
}

static bool load_stage(struct pre_stage *stage, const char *type, const json_t *json, struct err *e)
{
    static const struct {
        const char *type;
        bool (*load)(struct pre_stage *, const json_t *, struct err *);
    } kinds[] = { { "Split", load_split },
                  { "Digits", load_digits },
                  { "Metaspace", load_metaspace },
                  { "ByteLevel", load_byte_level } };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].load(stage, json, e);
    return err_set(e, ERR_MODEL, 0, "type '%s' is not supported", type);
}

static bool load_any(struct pre_tokenizer *p, const json_t *json, struct err *e)
{
    const char *type = json_field_type(json, e);
    const json_t *list, *item;
    size_t i;

    if (!type)
        return false;
    if (strcmp(type, "Sequence") != 0) {
        if (p->n_stages == PRE_TOKENIZER_STAGES_MAX)
            return err_set(e, ERR_MODEL, 0, "more than %d stages", PRE_TOKENIZER_STAGES_MAX);
        /* What comes after ByteLevel would see GPT-2's alphabet instead of the text. */
        if (p->byte_level)
            return err_set(e, ERR_MODEL, 0, "'%s' after ByteLevel is not supported", type);
        p->byte_level = strcmp(type, "ByteLevel") == 0;
        return load_stage(&p->stages[p->n_stages++], type, json, e);
    }
    list = json_object_get(json, "pretokenizers");
    if (!json_is_array(list))
        return err_set(e, ERR_MODEL, 0, "a Sequence has no list 'pretokenizers'");
    json_array_foreach (list, i, item) {
        if (!load_any(p, item, e))
            return false;
    }
    return true;
}

bool pre_tokenizer_load(struct pre_tokenizer *p, const json_t *json, struct err *e)
{
    *p = (struct pre_tokenizer){ 0 };
    if (!json || json_is_null(json))
        return true;
    p->stages = mem_zalloc(PRE_TOKENIZER_STAGES_MAX, sizeof *p->stages);
    return load_any(p, json, e) || err_wrap(e, "pre_tokenizer");
}

void pre_tokenizer_fini(struct pre_tokenizer *p)
{
    for (size_t i = 0; i < p->n_stages; i++)
        pattern_fini(&p->stages[i].pattern);
    free(p->stages);
    *p = (struct pre_tokenizer){ 0 };
}

void pre_tokenizer_scratch_fini(struct pre_tokenizer_scratch *s)
{
    for (size_t i = 0; i < PRE_TOKENIZER_STAGES_MAX; i++)
        text_rewrite_fini(&s->text[i]);
    regex_scratch_free(s->regex);
    *s = (struct pre_tokenizer_scratch){ 0 };
}

/* -- cutting ------------------------------------------------------------------------------- */

struct run {
    const struct pre_tokenizer *p;
    struct pre_tokenizer_scratch *scratch;
    pre_tokenizer_word_fn *word;
    void *arg;
    struct err *e;
};

static bool run_stage(const struct run *r, size_t index, const struct text_view *piece);

/* Makes pieces of the parts of a text, which come in order, each a match or what is between matches. */
struct cutter {
    const struct run *run;
    size_t index; /* of the stage */
    const struct text_view *text;
    enum behavior behavior;
    bool invert;
    bool held; /* a part that waits for its neighbour */
    bool held_match, last_match;
    size_t held_from, held_to;
};

static bool emit(const struct cutter *c, size_t from, size_t to)
{
    struct text_view piece = text_view_cut(c->text, from, to);

    return from == to || run_stage(c->run, c->index + 1, &piece);
}

static bool emit_held(struct cutter *c)
{
    bool held = c->held;

    c->held = false;
    return !held || emit(c, c->held_from, c->held_to);
}

static bool hold(struct cutter *c, size_t from, size_t to, bool match)
{
    if (!emit_held(c))
        return false;
    c->held = true;
    c->held_match = match;
    c->held_from = from;
    c->held_to = to;
    return true;
}

static bool add_part(struct cutter *c, size_t from, size_t to, bool match)
{
    bool joins;

    match ^= c->invert;
    switch (c->behavior) {
    case ISOLATED:
        return emit(c, from, to);
    case REMOVED:
        return match || emit(c, from, to);
    case CONTIGUOUS:
        joins = c->held && c->held_match == match;
        break;
    case MERGED_WITH_PREVIOUS:
        joins = c->held && match && !c->last_match;
        c->last_match = match;
        break;
    default:
        joins = c->held && c->held_match && !match;
        c->held_match = match;
        break;
    }
    if (!joins)
        return hold(c, from, to, match);
    c->held_to = to;
    return true;
}

static bool cut_by_pattern(struct cutter *c, const struct pattern *pattern)
{
    const struct text_view *v = c->text;
    size_t done = 0, at = 0, from, to;
    enum regex_result result;

    while (at <= v->n && (result = pattern_search(pattern, &c->run->scratch->regex, v->s, v->n, at,
                                                  &from, &to)) != REGEX_NO_MATCH) {
        if (result == REGEX_TOO_HARD)
            return err_set(c->run->e, ERR_INPUT, 0,
                           "the text takes the tokenizer's regular expression too long");
        if ((done < from && !add_part(c, done, from, false)) || !add_part(c, from, to, true))
            return false;
        done = at = to;
        if (from == to) /* an empty match: go on behind the next character */
            at += at < v->n ? utf8_length(v->s[at]) : 1;
    }
    return (done == v->n || add_part(c, done, v->n, false)) && emit_held(c);
}

static bool cut_digits(struct cutter *c)
{
    const struct text_view *v = c->text;
    size_t done = 0;

    for (size_t i = 0, len; i < v->n; i += len)
        if (unicode_is_number(utf8_decode(v->s + i, &len))) {
            if ((done < i && !add_part(c, done, i, false)) || !add_part(c, i, i + len, true))
                return false;
            done = i + len;
        }
    return (done == v->n || add_part(c, done, v->n, false)) && emit_held(c);
}

static bool begins_with(const struct text_view *v, const char *s)
{
    size_t n = strlen(s);

    return v->n >= n && memcmp(v->s, s, n) == 0;
}

/* Spaces become marks, and the piece gets one in front where the scheme wants it. */
static struct text_view mark_spaces(const struct pre_stage *stage, const struct text_view *v,
                                    struct text_rewrite *out)
{
    bool wanted = stage->prefix == PREFIX_ALWAYS || (stage->prefix == PREFIX_FIRST && v->at_start);
    size_t n_mark = strlen(stage->mark), done = 0;

    if (wanted && !begins_with(v, " ") && !begins_with(v, stage->mark))
        text_rewrite_put(out, stage->mark, n_mark, text_view_origin(v, 0));
    for (size_t i = 0; i < v->n; i++)
        if (v->s[i] == ' ') {
            text_rewrite_copy(out, v, done, i);
            text_rewrite_put(out, stage->mark, n_mark, text_view_origin(v, i));
            done = i + 1;
        }
    text_rewrite_copy(out, v, done, v->n);
    return text_rewrite_view(out, v);
}

/* A new word at every mark. */
static bool cut_at_marks(struct cutter *c, const char *mark)
{
    struct pattern pattern = { .string = (char *)mark, .n = strlen(mark) };

    c->behavior = MERGED_WITH_NEXT;
    return cut_by_pattern(c, &pattern);
}

static struct text_view put_space_first(const struct text_view *v, struct text_rewrite *out)
{
    text_rewrite_put(out, " ", 1, text_view_origin(v, 0));
    text_rewrite_copy(out, v, 0, v->n);
    return text_rewrite_view(out, v);
}

static bool run_stage(const struct run *r, size_t index, const struct text_view *piece)
{
    const struct pre_stage *stage = &r->p->stages[index];
    struct text_view text = *piece;
    struct cutter cutter = { .run = r, .index = index, .text = &text };

    if (index == r->p->n_stages) {
        r->word(r->arg, piece);
        return true;
    }
    cutter.behavior = stage->behavior;
    cutter.invert = stage->invert;
    text_rewrite_reset(&r->scratch->text[index], r->scratch->tracks);
    switch (stage->kind) {
    case STAGE_SPLIT:
        return cut_by_pattern(&cutter, &stage->pattern);
    case STAGE_DIGITS:
        return cut_digits(&cutter);
    case STAGE_METASPACE:
        text = mark_spaces(stage, piece, &r->scratch->text[index]);
        return stage->splits ? cut_at_marks(&cutter, stage->mark) : emit(&cutter, 0, text.n);
    default:
        if (stage->prefix == PREFIX_ALWAYS && !begins_with(piece, " "))
            text = put_space_first(piece, &r->scratch->text[index]);
        return stage->splits ? cut_by_pattern(&cutter, &stage->pattern) : emit(&cutter, 0, text.n);
    }
}

bool pre_tokenizer_run(const struct pre_tokenizer *p, struct pre_tokenizer_scratch *scratch,
                       const struct text_view *text, pre_tokenizer_word_fn *word, void *arg,
                       struct err *e)
{
    struct run run = { .p = p, .scratch = scratch, .word = word, .arg = arg, .e = e };

    return text->n == 0 || run_stage(&run, 0, text);
}
