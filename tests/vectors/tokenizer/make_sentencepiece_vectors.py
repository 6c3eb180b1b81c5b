#!/usr/bin/env python3
"""make_sentencepiece_vectors.py - small tokenizer.model files, and what the SentencePiece library makes
of texts.json with them and with the demo model.

Written to <kind>/tokenizer.model and <kind>/expected.json, in the form of make_json_vectors.mjs; here
"decode" has the text without control pieces only, since that is all the library gives.
Needs Debian's python3-sentencepiece."""
import json
import os
import random

import sentencepiece as spm

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "../../../models/stories-demo/tokenizer.model")
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
TEXTS = json.load(open(os.path.join(HERE, "texts.json")))
# In training the library refuses NUL and U+2581.
CORPUS = [line for text in TEXTS for line in text.replace("\0", "").splitlines()
          if "▁" not in line and "\ufffd" not in line and line.strip()]

RULES = """\
E9\t65
FB01\t66 69
A0\t20
2003\t20
3000\t20
200B\t
26\t20 61 6E 64 20
CF\t69
65 301\t65
"""

KINDS = {
    # As Llama 2 was made.
    "sp_llama": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                     remove_extra_whitespaces=False, split_digits=True,
                     allow_whitespace_only_pieces=True),
    # As Gemma: no space in front, user-defined symbols, bos after others.
    "sp_gemma": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                     remove_extra_whitespaces=False, add_dummy_prefix=False, pad_id=0, eos_id=1,
                     bos_id=2, unk_id=3, user_defined_symbols=["<mask>", "TAG", "▁▁", "==", "e"]),
    # Own rules, spaces squeezed, unknown characters stay unknown.
    "sp_rules": dict(model_type="bpe", rules=RULES, user_defined_symbols=["<mask>", "the"]),
    # The library's own default: Unigram with NFKC.
    "sp_unigram": dict(model_type="unigram", normalization_rule_name="nmt_nfkc"),
    "sp_unigram_bytes": dict(model_type="unigram", byte_fallback=True,
                             normalization_rule_name="identity", remove_extra_whitespaces=False,
                             user_defined_symbols=["<mask>", "TAG", "l"]),
}


def pack(ids):
    return "".join(DIGITS[i >> 6] + DIGITS[i & 63] for i in ids)


def train(kind, folder):
    """The model keeps the names it is given here, so they are relative ones."""
    prefix = "tokenizer"
    os.chdir(folder)
    args = dict(KINDS[kind])
    rules = args.pop("rules", None)
    if rules:
        with open(prefix + ".tsv", "w") as f:
            f.write(rules)
        args["normalization_rule_tsv"] = prefix + ".tsv"
    with open(prefix + ".txt", "w") as f:
        f.write("\n".join(CORPUS) + "\n")
    spm.SentencePieceTrainer.train(input=prefix + ".txt", model_prefix=prefix, vocab_size=900,
                                   character_coverage=0.98, hard_vocab_limit=False,
                                   num_threads=1, minloglevel=2, **args)
    for suffix in (".txt", ".tsv", ".vocab"):
        if os.path.exists(prefix + suffix):
            os.remove(prefix + suffix)


def decode_cases(sp, seed):
    """Encoded texts, and lists of random ids; unknown pieces have a text of their own there."""
    draw = random.Random(seed)
    lists = [sp.encode(t) for t in TEXTS[::6] if len(t) < 200]
    lists += [[draw.randrange(sp.get_piece_size()) for _ in range(draw.randrange(1, 10))]
              for _ in range(200)]
    return [[pack(ids), sp.decode(ids)] for ids in lists if ids and sp.unk_id() not in ids]


def lines(items):
    return "[\n" + ",\n".join(json.dumps(x, ensure_ascii=False) for x in items) + "\n]"


def expect(kind, model, out):
    sp = spm.SentencePieceProcessor(model_file=model)
    ids = [pack(sp.encode(t)) for t in TEXTS]
    with open(out, "w") as f:
        f.write('{"ids": %s,\n"decode": %s}\n' % (lines(ids), lines(decode_cases(sp, 11))))
    print(kind, sp.get_piece_size(), "pieces")


def main():
    for kind in KINDS:
        folder = os.path.join(HERE, kind)
        os.makedirs(folder, exist_ok=True)
        train(kind, folder)
        expect(kind, os.path.join(folder, "tokenizer.model"), os.path.join(folder, "expected.json"))
    os.makedirs(os.path.join(HERE, "demo"), exist_ok=True)
    expect("demo", DEMO, os.path.join(HERE, "demo", "expected.json"))


main()
