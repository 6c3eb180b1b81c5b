/* jinja.h - the template language of chat templates; private to text/.
 *
 *   source --jinja_lex.c--> tokens --jinja_parse*.c--> tree --jinja_exec.c, jinja_eval.c--> text
 *
 * The language is the part of Jinja 3.1 that chat templates of model repositories use, under the
 * settings of their usual renderer: sandboxed, immutable values, trim_blocks, lstrip_blocks, loop
 * controls, autoescape off.  Values behave as in Python, since templates were written against it.
 *
 * A program (struct jprog) is immutable once parsed; a run (struct jrun) belongs to one thread, takes
 * all its memory from one arena and is bounded in steps, bytes and depth, so that no template, however
 * hostile, can hang or crash the process.
 *
 * Where it differs from Jinja, knowingly: integers have 64 bits; map, select and the like look at
 * their items at once and not when they are read (errors come earlier, text is the same); a loop's own
 * "if" is decided for all items before the first pass; a name is looked up when it is read, so a top
 * level set further down does not hide the caller's variable from loops above it; case mapping is the
 * simple one; braces of str.format() take no format after a colon.
 *
 * Failure: functions return false (or NULL) after jrun_fail() or jparse_fail() has filled struct err;
 * nobody continues after that. */
#ifndef LLMD_TEXT_JINJA_H
#define LLMD_TEXT_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/arena.h"
#include "common/err.h"
#include "common/json.h"

#define JINJA_SOURCE_MAX (512u * 1024)       /* bytes of template text */
#define JINJA_STRING_MAX (16u * 1024 * 1024) /* bytes of the output, or of any string in a run */
#define JINJA_RANGE_MAX  100000              /* as Jinja's sandbox */

enum {
    JINJA_NEST_MAX = 200,       /* of the source: expressions in expressions, blocks in blocks */
    JINJA_DEPTH_MAX = 500,      /* of a run: nested evaluations, macro calls included */
    JINJA_VALUE_NEST_MAX = 200, /* lists in lists, when a value is read, printed or compared */
    JINJA_SYMBOLS_MAX = 4096,
};

enum jcase { JCASE_UPPER, JCASE_LOWER, JCASE_TITLE };

/* ---- values ---------------------------------------------------------------------------------- */

enum jkind {
    J_ABSENT, /* an argument not given, a variable not set: no template ever sees it */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_SEQ,
    J_DICT,
    J_NAMESPACE,
    J_FUNC,   /* a global function */
    J_METHOD, /* a function bound to the value before the dot */
    J_MACRO,
    J_LOOP,
    J_CYCLER,
    J_JOINER,
};

/* 16 bytes, passed by value.  What it points to lives in the arena of the run or of the program, or
 * (strings) in the json_t given by the caller, and is never changed once others may see it; the
 * exceptions are namespaces, generators, loops, cyclers and joiners. */
struct jval {
    uint8_t kind; /* enum jkind */
    bool markup;  /* J_STR: came from |safe or |escape, so + escapes what is added */
    uint32_t n;   /* J_STR: bytes */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* UTF-8, valid, not terminated */
        struct jseq *seq;
        struct jdict *dict; /* J_DICT and J_NAMESPACE */
        const struct jundef *undef;
        const struct jbuiltin *func;
        const struct jmethod *method;
        const struct jmacro *macro;
        struct jloop *loop;
        struct jcycler *cycler; /* J_CYCLER and J_JOINER */
    };
};

enum jseq_type {
    JSEQ_LIST,
    JSEQ_TUPLE,
    JSEQ_GROUP, /* a pair of |groupby: a tuple with .grouper and .list */
    JSEQ_RANGE,
    JSEQ_KEYS,
    JSEQ_VALUES,
    JSEQ_ITEMS,
    JSEQ_GEN, /* a generator: no length, used up by the first who iterates it */
};

struct jseq {
    enum jseq_type type;
    uint32_t n, cap;
    uint32_t at; /* JSEQ_GEN: items already taken */
    struct jval *items;
};

struct jpair {
    struct jval key, value;
};

struct jdict {
    uint32_t n, cap;
    struct jpair *pairs; /* in the order of insertion; found by linear search */
};

struct jundef {
    const char *hint;   /* the message, or NULL: made of the two below */
    struct jval object; /* J_ABSENT: a variable */
    struct jval name;
};

struct jmethod {
    struct jval self;
    const struct jbuiltin *func;
};

struct jcycler {
    const struct jval *items; /* a joiner has one: its separator */
    uint32_t n, at;
};

/* ---- the program ------------------------------------------------------------------------------- */

enum jnode_type {
    /* Statements           a           b         c           d         e                         */
    JN_TEXT,       /*                                                   value: the bytes          */
    JN_PRINT,      /*       exprs                                                                 */
    JN_IF,         /*       test        body      else body   next elif                           */
    JN_FOR,        /*       target      iterable  body        else body filter test               */
    JN_SET,        /*       target      expr                                                      */
    JN_SET_BLOCK,  /*       target      body      filters                                         */
    JN_MACRO,      /* sym   parameters  body                            flags: JMACRO_*           */
    JN_CALL_BLOCK, /*       call        body      parameters            flags of its caller()     */
    JN_FILTER_BLOCK, /*     filters     body                                                      */
    JN_WITH,       /*       targets     values    body                                            */
    JN_GENERATION, /*                   body                                                      */
    JN_BREAK,
    JN_CONTINUE,
    /* Expressions */
    JN_CONST,   /*                                                     value                     */
    JN_NAME,    /* sym                                                                           */
    JN_NS_ATTR, /* sym                                                 value: name; set target   */
    JN_TUPLE,   /*         items                                                                 */
    JN_LIST,    /*         items                                                                 */
    JN_DICT,    /*         pairs                                                                 */
    JN_PAIR,    /*         key         value                                                     */
    JN_ATTR,    /*         object                                      value: name; methods      */
    JN_INDEX,   /*         object      subscript                                                 */
    JN_SLICE,   /*         start       stop      step (each may be NULL)                         */
    JN_CALL,    /*         callee      arguments                                                 */
    JN_KWARG,   /*         expr                                        value: name               */
    JN_STAR,    /*         expr                                                                  */
    JN_STAR2,   /*         expr                                                                  */
    JN_FILTER,  /*         input       arguments                       func; no input: the block */
    JN_TEST,    /*         input       arguments                       func                      */
    JN_NOT,     /*         expr                                                                  */
    JN_NEG,     /*         expr                                                                  */
    JN_POS,     /*         expr                                                                  */
    JN_AND,     /*         left        right                                                     */
    JN_OR,      /*         left        right                                                     */
    JN_BINARY,  /* op      left        right                                                     */
    JN_CONCAT,  /*         parts                                                                 */
    JN_COMPARE, /*         first       list of JN_OPERAND                                        */
    JN_OPERAND, /* op      expr                                                                  */
    JN_COND,    /*         test        then      else or NULL                                    */
    JN_PARAM,   /* sym     default or NULL                                                       */
};

enum jop {
    JOP_ADD,
    JOP_SUB,
    JOP_MUL,
    JOP_DIV,
    JOP_FLOORDIV,
    JOP_MOD,
    JOP_POW,
    JOP_EQ,
    JOP_NE,
    JOP_LT,
    JOP_LE,
    JOP_GT,
    JOP_GE,
    JOP_IN,
    JOP_NOT_IN,
};

enum { JMACRO_VARARGS = 1, JMACRO_KWARGS = 2, JMACRO_CALLER = 4 };

/* The functions a name after a dot means, by the kind of value before it; looked up once. */
struct jattr_funcs {
    const struct jbuiltin *str, *seq, *dict;
};

struct jnode {
    enum jnode_type type;
    int line;
    int depth; /* 1 + the deepest child */
    int sym;
    enum jop op;
    int flags;
    struct jnode *next; /* of the list this node is in */
    struct jnode *a, *b, *c, *d, *e;
    struct jval value;
    const struct jbuiltin *func;
    struct jattr_funcs methods;
};

struct jsym {
    const char *name;
    uint32_t n;
    int next;       /* of its hash chain; -1 ends it */
    bool is_loaded; /* read somewhere, not only set */
};

/* Names the language itself sets; interned first, so that these are their numbers. */
enum { JSYM_LOOP, JSYM_CALLER, JSYM_VARARGS, JSYM_KWARGS };

struct jprog {
    struct arena mem;
    struct jnode *body;
    struct jsym *syms;
    int n_syms, syms_cap;
    int sym_heads[256];
};

/* Parse n bytes of template text.  ERR_MODEL with the line.  *p is the caller's, zeroed; free it with
 * jprog_fini() whatever the result. */
bool jprog_init(struct jprog *p, const char *source, size_t n, struct err *e);
void jprog_fini(struct jprog *p);
int jprog_find_sym(const struct jprog *p, const char *name, size_t n); /* -1: not there */
int jprog_intern(struct jprog *p, const char *name, size_t n);         /* -1: too many */

/* ---- tokens ------------------------------------------------------------------------------------ */

enum jtok_type {
    JT_EOF,
    JT_TEXT,
    JT_PRINT_BEGIN,
    JT_PRINT_END,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_NAME,
    JT_STRING,
    JT_INT,
    JT_FLOAT,
    JT_OP,
};

/* Operators of two characters; those of one are their character. */
enum { JT_EQ = 256, JT_NE, JT_LE, JT_GE, JT_POW, JT_FLOORDIV };

struct jtok {
    enum jtok_type type;
    int line;
    int op;
    const char *s; /* name, or decoded text and string */
    size_t n;
    int64_t i;
    double f;
};

/* Cut the source into tokens, the last of which is JT_EOF.  Tokens and their text live in `mem`, and
 * names point into `source`. */
bool jlex(const char *source, size_t n, struct arena *mem, struct jtok **toks, size_t *n_toks,
          struct err *e);

struct jparser {
    struct jprog *prog;
    const struct jtok *at;
    struct err *e;
    int nest;
    int loops;           /* for statements around, inside the innermost macro */
    struct jnode *macro; /* innermost macro or call block, for its flags */
    bool is_target;      /* names are set here, not read */
};

bool jparse_fail(struct jparser *p, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
struct jnode *jparse_node(struct jparser *p, enum jnode_type type);
bool jparse_is_op(const struct jparser *p, int op);
bool jparse_is_name(const struct jparser *p, const char *name);
bool jparse_skip_op(struct jparser *p, int op);
bool jparse_skip_name(struct jparser *p, const char *name);
bool jparse_expect_op(struct jparser *p, int op);
bool jparse_enter(struct jparser *p);                 /* one level deeper; false: too deep */
bool jparse_seal(struct jparser *p, struct jnode *n); /* children are set: check the depth */
/* Expressions (jinja_parse_expr.c).  NULL after an error. */
struct jnode *jparse_expr(struct jparser *p);
struct jnode *jparse_or(struct jparser *p);
struct jnode *jparse_primary(struct jparser *p);
enum jtuple { JTUPLE_PRIMARY, JTUPLE_NO_COND, JTUPLE_ANY, JTUPLE_PARENS };
/* One expression, or several with commas as a tuple; `end` is a name that ends it, or NULL. */
struct jnode *jparse_tuple(struct jparser *p, enum jtuple how, const char *end);
/* Filters after `input`; with `inline_first` the first has no bar before it. */
struct jnode *jparse_filters(struct jparser *p, struct jnode *input, bool inline_first);

/* ---- the run ----------------------------------------------------------------------------------- */

struct jvar {
    int sym;
    struct jval value;
};

struct jscope {
    struct jscope *up; /* NULL: next is the table of the top level */
    struct jvar *vars;
    uint32_t n, cap;
};

/* A growing string in the arena; fails for good once it passes JINJA_STRING_MAX. */
struct jbuf {
    struct jrun *run;
    char *data;
    size_t n, cap;
    bool is_full;
};

struct jrun {
    const struct jprog *prog;
    struct arena mem;
    size_t mem_used, mem_max;  /* bytes taken from the arena */
    uint64_t steps, steps_max; /* tree nodes visited, plus a share of bytes looked at */
    int depth;
    int line;
    struct jval *top; /* [n_syms]: the caller's variables, global functions, top-level sets */
    struct jscope *scope;
    struct jbuf *out;
    const struct tm *now;
    struct err *e;
};

struct jcall;

struct jmacro {
    const struct jnode *node; /* JN_MACRO or JN_CALL_BLOCK */
    const struct jnode *params;
    const struct jnode *body;
    struct jscope *scope; /* where it was defined */
    struct jval name;     /* J_NONE: a caller() */
};

struct jloop {
    const struct jval *items;
    uint32_t n, at;
    int64_t depth0;
    struct jval changed; /* arguments of the last loop.changed(), a tuple */
};

enum jflow { JFLOW_NEXT, JFLOW_BREAK, JFLOW_CONTINUE, JFLOW_FAIL };

bool jrun_fail(struct jrun *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool jrun_undef_fail(struct jrun *r, struct jval undef);
bool jrun_work(struct jrun *r, size_t items); /* count steps for looking at so many items */
bool jrun_room(struct jrun *r, size_t bytes); /* before a big allocation: would it be too much? */
void *jrun_alloc(struct jrun *r, size_t bytes);
struct jval jrun_get(struct jrun *r, int sym);
void jrun_set(struct jrun *r, int sym, struct jval v);
void jscope_set(struct jrun *r, struct jscope *s, int sym, struct jval v);
bool jrun_render(struct jrun *r, const json_t *vars);

enum jflow jexec(struct jrun *r, const struct jnode *body);
bool jexec_macro(struct jrun *r, const struct jmacro *m, const struct jcall *c, struct jval *out);
bool jeval(struct jrun *r, const struct jnode *n, struct jval *out);
bool jeval_call(struct jrun *r, struct jval callee, struct jcall *c, struct jval *out);
/* Apply JN_FILTERs whose innermost has no input to `in`. */
bool jeval_filters(struct jrun *r, const struct jnode *n, struct jval in, struct jval *out);
/* Evaluate JN_CALL n with caller() set. */
bool jeval_call_with(struct jrun *r, const struct jnode *n, struct jval caller, struct jval *out);

void jbuf_add(struct jbuf *b, const void *bytes, size_t n);
void jbuf_add_str(struct jbuf *b, const char *s);
void jbuf_add_char(struct jbuf *b, char c);
void jbuf_add_cp(struct jbuf *b, uint32_t cp);
void jbuf_fill(struct jbuf *b, char c, size_t n);
bool jbuf_done(struct jbuf *b, struct jval *out); /* false when it is full */

/* ---- functions, filters and tests ---------------------------------------------------------------- */

enum { JCALL_PARAMS_MAX = 6, JCALL_ARGS_MAX = 1024 };

struct jkwarg {
    const char *name;
    uint32_t n;
    struct jval value;
};

struct jcall {
    struct jval self; /* left of the dot, the bar or the "is" */
    struct jval *pos;
    struct jkwarg *kw;
    uint32_t n_pos, n_kw;
    struct jval arg[JCALL_PARAMS_MAX]; /* by parameter, J_ABSENT where not given */
};

struct jbuiltin {
    const char *name;
    bool (*call)(struct jrun *r, struct jcall *c, struct jval *out);
    const char *params; /* "old new count=": after =, optional; NULL: pos and kw as they come */
};

const struct jbuiltin *jbuiltin_find(const struct jbuiltin *table, const char *name, size_t n);
bool jbuiltin_call(struct jrun *r, const struct jbuiltin *f, struct jcall *c, struct jval *out);
/* Argument i as a bounded integer; `otherwise` when absent (or None where none_too). */
bool jcall_int(struct jrun *r, const struct jcall *c, int i, int64_t otherwise, int64_t *out);
bool jcall_str(struct jrun *r, const struct jcall *c, int i, struct jval *out);

/* Tables end with a NULL name. */
extern const struct jbuiltin jinja_globals[];
extern const struct jbuiltin jinja_filters[];
extern const struct jbuiltin jinja_tests[];
extern const struct jbuiltin jinja_str_methods[];
extern const struct jbuiltin jinja_seq_methods[];
extern const struct jbuiltin jinja_dict_methods[];
extern const struct jbuiltin jinja_loop_methods[];
extern const struct jbuiltin jinja_cycler_methods[];
const struct jbuiltin *jinja_find_filter(const char *name, size_t n);
/* Would this method change the value?  Values are immutable, so it is refused. */
bool jinja_is_refused_method(struct jval v, const char *name, size_t n);

/* ---- what values can do --------------------------------------------------------------------------- */

static inline struct jval jval_none(void)
{
    return (struct jval){ .kind = J_NONE };
}

static inline struct jval jval_bool(bool b)
{
    return (struct jval){ .kind = J_BOOL, .b = b };
}

static inline struct jval jval_int(int64_t i)
{
    return (struct jval){ .kind = J_INT, .i = i };
}

static inline struct jval jval_float(double f)
{
    return (struct jval){ .kind = J_FLOAT, .f = f };
}

static inline struct jval jval_str(const char *s, size_t n)
{
    return (struct jval){ .kind = J_STR, .n = (uint32_t)n, .s = s };
}

static inline struct jval jval_seq(struct jseq *s)
{
    return (struct jval){ .kind = J_SEQ, .seq = s };
}

static inline struct jval jval_dict(struct jdict *d)
{
    return (struct jval){ .kind = J_DICT, .dict = d };
}

static inline bool jval_is_num(struct jval v)
{
    return v.kind == J_INT || v.kind == J_BOOL || v.kind == J_FLOAT;
}

static inline bool jval_is_int(struct jval v) /* as Python's isinstance(v, int) */
{
    return v.kind == J_INT || v.kind == J_BOOL;
}

static inline int64_t jval_as_int(struct jval v)
{
    return v.kind == J_BOOL ? v.b : v.i;
}

static inline double jval_as_float(struct jval v)
{
    return v.kind == J_FLOAT ? v.f : (double)jval_as_int(v);
}

struct jval jval_undef(struct jrun *r, struct jval object, struct jval name);
struct jval jval_undef_hint(struct jrun *r, const char *hint);
bool jval_is_str(struct jval v, const char *s);
bool jval_truth(struct jval v);
const char *jval_type_name(struct jval v);
bool jval_from_json(struct jrun *r, const json_t *j, int nest, struct jval *out);
bool jval_equal(struct jrun *r, struct jval a, struct jval b, bool *out);
bool jval_order(struct jrun *r, struct jval a, struct jval b, const char *op, int *out);
bool jval_contains(struct jrun *r, struct jval container, struct jval item, bool *out);
/* The items of anything that can be iterated, as an array that stays as it is. */
bool jval_iterate(struct jrun *r, struct jval v, struct jval **items, uint32_t *n);
bool jval_length(struct jrun *r, struct jval v, int64_t *out);

struct jseq *jseq_new(struct jrun *r, enum jseq_type type, size_t cap);
bool jseq_push(struct jrun *r, struct jseq *s, struct jval v);
struct jdict *jdict_new(struct jrun *r, size_t cap);
bool jdict_get(struct jrun *r, const struct jdict *d, struct jval key,
               struct jval *out); /* J_ABSENT */
struct jval *jdict_find(const struct jdict *d, const char *key,
                        size_t n); /* by a string; or NULL */
bool jdict_set(struct jrun *r, struct jdict *d, struct jval key, struct jval value);

/* Operators (jinja_ops.c). */
bool jop_binary(struct jrun *r, enum jop op, struct jval a, struct jval b, struct jval *out);
bool jop_compare(struct jrun *r, enum jop op, struct jval a, struct jval b, bool *out);
/* HTML entities for & < > ' and "; the result is marked as escaped. */
bool jop_escape(struct jrun *r, struct jval s, struct jval *out);
bool jop_negate(struct jrun *r, struct jval v, struct jval *out);
bool jop_attr(struct jrun *r, struct jval v, struct jval name, const struct jattr_funcs *m,
              struct jval *out);
bool jop_index(struct jrun *r, struct jval v, struct jval key, struct jval *out);
bool jop_slice(struct jrun *r, struct jval v, const struct jval bounds[3], struct jval *out);

/* Text forms (jinja_text.c). */
bool jval_print(struct jbuf *b, struct jval v);                    /* str() */
bool jval_to_str(struct jrun *r, struct jval v, struct jval *out); /* str(), strings as they are */
bool jval_repr(struct jbuf *b, struct jval v, int nest);           /* repr() */
void jval_add_float(struct jbuf *b, double f);
/* printf-style formatting, the % operator of strings (jinja_format.c). */
bool jformat_percent(struct jrun *r, struct jval format, struct jval args, struct jval *out);
bool jformat_braces(struct jrun *r, struct jval format, const struct jcall *c, struct jval *out);
/* Filters and methods that more than one file needs. */
bool jstr_strip(struct jrun *r, struct jval s, struct jval chars, int sides, struct jval *out);
bool jstr_replace(struct jrun *r, struct jval s, struct jval from, struct jval to, int64_t count,
                  struct jval *out);
bool jstr_case(struct jrun *r, struct jval s, enum jcase how, struct jval *out);
bool jstr_capitalize(struct jrun *r, struct jval s, struct jval *out);
bool jstr_join(struct jrun *r, struct jval separator, const struct jval *items, uint32_t n,
               bool any_type, struct jval *out);
bool jstr_pad(struct jrun *r, struct jval s, int64_t width, uint32_t fill, int how,
              struct jval *out);
enum { JSIDE_LEFT = 1, JSIDE_RIGHT = 2, JSIDE_BOTH = 3 };
/* JSON as Python's json.dumps writes it (jinja_json.c). */
bool jinja_tojson(struct jrun *r, struct jcall *c, struct jval *out);

/* ---- characters (jinja_utf8.c) -------------------------------------------------------------------- */

/* The character at s[*at]; moves *at past it.  The text is valid UTF-8. */
uint32_t jutf8_next(const char *s, size_t *at);
uint32_t jutf8_prev(const char *s, size_t *at);
size_t jutf8_count(const char *s, size_t n);
size_t jutf8_offset(const char *s, size_t n, size_t index); /* of character `index`, at most n */
bool jutf8_is_space(uint32_t cp);                           /* as str.isspace() */
bool jutf8_is_printable(uint32_t cp);                       /* as str.isprintable() */
size_t jutf8_trim_left(const char *s, size_t n);            /* offset of the first non-space */
size_t jutf8_trim_right(const char *s, size_t n);           /* length without spaces at the end */
size_t jutf8_line(const char *s, size_t n,
                  size_t *next); /* length of the first line, as splitlines() */
void jutf8_add_case(struct jbuf *b, uint32_t cp, enum jcase how);

#endif
