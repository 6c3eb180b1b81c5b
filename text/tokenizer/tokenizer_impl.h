/* tokenizer_impl.h - the inside of a tokenizer, for the files that fill it and for the detokenizer.
 *
 *   text -> added tokens cut out -> normalizer -> pre-tokenizer -> model (BPE or Unigram) -> ids
 *   ids  -> what each adds to a text (vocab, worked out by the decoder) -> text */
#ifndef LLMD_TEXT_TOKENIZER_IMPL_H
#define LLMD_TEXT_TOKENIZER_IMPL_H

#include "text/tokenizer.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/post_processor.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/token_decoder.h"
#include "text/tokenizer/unigram.h"
#include "text/tokenizer/vocab.h"

struct gguf;

enum tokenizer_model { TOKENIZER_BPE, TOKENIZER_UNIGRAM };

struct tokenizer {
    struct vocab vocab;
    struct added_tokens added;
    struct normalizer normalizer;
    struct pre_tokenizer pre_tokenizer;
    enum tokenizer_model model;
    struct bpe bpe;
    struct unigram unigram;
    struct trie user_defined; /* SentencePiece: pieces that are taken from the text as they are */
    struct post_processor post_processor;
    struct token_decoder decoder;
    int32_t bos_id, eos_id, unk_id, pad_id; /* -1: none */
};

/* The bytes of one file; NULL when the model has none. */
struct tokenizer_file {
    const char *s;
    size_t n;
};

struct tokenizer_files {
    struct tokenizer_file json;        /* tokenizer.json */
    struct tokenizer_file model;       /* tokenizer.model, when there is no tokenizer.json */
    struct tokenizer_file config;      /* tokenizer_config.json */
    struct tokenizer_file special_map; /* special_tokens_map.json */
    struct tokenizer_file added;       /* added_tokens.json, only beside tokenizer.model */
};

/* The files that a directory of the same model would have, from the metadata of a GGUF file; the caller frees their
 * bytes.  ERR_MODEL. */
bool tokenizer_gguf_files(const struct gguf *g, struct tokenizer_files *files, struct err *e);

/* The names of tokenizer.ggml.pre that are known; NULL behind the last. */
const char *tokenizer_gguf_pre(size_t i);

/* Fill a zeroed *t whose ids are -1.  What was filled when they fail is for tokenizer_close(). */
bool tokenizer_load_json(struct tokenizer *t, struct tokenizer_file json, struct err *e);
bool tokenizer_load_sentencepiece(struct tokenizer *t, struct tokenizer_file model, struct err *e);

/* Then: special tokens and switches from the smaller files. */
bool tokenizer_load_config(struct tokenizer *t, const struct tokenizer_files *files, struct err *e);

/* Give token `id` = content[0..n) to t->added; the vocabulary gets it too, unless it has it.
 * ERR_MODEL when it has it otherwise. */
bool tokenizer_add_token(struct tokenizer *t, const char *content, size_t n, int64_t id,
                         struct added_token flags, struct err *e);

#endif
