// make_json_vectors.mjs - small tokenizer.json files of every kind we support, and what an
// independent implementation (@huggingface/tokenizers) makes of texts.json with them.
//
// The configurations are those of the published models; the vocabularies are trained here, on the texts
// themselves.  Written to <kind>/tokenizer.json and <kind>/expected.json:
//   {"ids": [per text a string of two characters per id, or null: not compared],
//    "decode": [[ids, text, text without special tokens], ...]}
// Not compared is what that implementation does otherwise than the reference one (Rust); each
// place below says why.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const here = (name) => new URL(name, import.meta.url);
const texts = JSON.parse(readFileSync(here("texts.json")));
const MERGES = 420;

const alphabet = (() => { // GPT-2's bytes, in the order of their code points
  const own = [[0x21, 0x7e], [0xa1, 0xac], [0xae, 0xff]];
  const of = new Map();
  let next = 256;
  for (let b = 0; b < 256; b++) of.set(b, String.fromCodePoint(own.some(([a, z]) => a <= b && b <= z) ? b : next++));
  return [...of.values()].sort();
})();

const special = (content, more = {}) => ({ content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...more });
const added = (content, more = {}) => special(content, { special: false, ...more });
const bos = (name) => ({ type: "TemplateProcessing", single: [{ SpecialToken: { id: name, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }], pair: [], special_tokens: { [name]: { id: name, ids: [name], tokens: [name] } } });
const byteLevel = (more = {}) => ({ type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false, ...more });
const split = (Regex, behavior = "Isolated") => ({ type: "Split", pattern: { Regex }, behavior, invert: false });
const sequence = (pretokenizers) => ({ type: "Sequence", pretokenizers });
const fallbackDecoder = (strip) => ({ type: "Sequence", decoders: [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, { type: "Fuse" }, ...(strip ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [])] });
const spaceToMark = { type: "Replace", pattern: { String: " " }, content: "▁" };

const words = (digits) => `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const tekken = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const o200k = tekken.replace("+|[^", "+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^").replace("*|\\p{N}|", "*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}|"); // GPT-4o's, of Phi-4 mini

const bytes = { byte_fallback: false, fuse_unk: false, unk_token: null };
const characters = { byte_fallback: true, fuse_unk: true, unk_token: "<unk>" };

const kinds = {
  gpt2: { model: bytes, added: [special("<|endoftext|>")], normalizer: null, pre_tokenizer: byteLevel({ use_regex: true }), post_processor: byteLevel({ trim_offsets: false }), decoder: byteLevel(),
    // Its \s is JavaScript's here, which has U+FEFF and lacks U+0085.
    skip: /[\ufeff\u0085]/ },
  gpt2_prefix: { model: bytes, added: [special("<mask>", { lstrip: true }), special("</s>")], normalizer: null, pre_tokenizer: byteLevel({ use_regex: true, add_prefix_space: true }), post_processor: byteLevel({ trim_offsets: true }), decoder: byteLevel(), skip: /[\ufeff\u0085]/ },
  llama3: { model: { ...bytes, ignore_merges: true }, added: [special("<|begin_of_text|>"), special("<|end_of_text|>"), special("<|eot_id|>")], normalizer: null, pre_tokenizer: sequence([split(words("{1,3}")), byteLevel()]), post_processor: { type: "Sequence", processors: [byteLevel({ add_prefix_space: true, trim_offsets: false }), bos("<|begin_of_text|>")] }, decoder: byteLevel() },
  qwen2: { model: bytes, added: [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>"), added("<tool_call>"), added("<think>"), added("</think>")], normalizer: { type: "NFC" }, pre_tokenizer: sequence([split(words("")), byteLevel({ trim_offsets: false })]), post_processor: byteLevel({ trim_offsets: false }), decoder: byteLevel() },
  tekken: { model: { ...bytes, ignore_merges: true }, first: [special("<unk>"), special("<s>"), special("</s>"), special("[INST]"), special("[/INST]")], normalizer: null, pre_tokenizer: sequence([split(tekken), byteLevel()]), post_processor: bos("<s>"), decoder: byteLevel() },
  phi4_mini: { model: bytes, added: [special("<|endoftext|>"), special("<|user|>", { rstrip: true }), special("<|end|>", { rstrip: true })], normalizer: null, pre_tokenizer: sequence([split(o200k), byteLevel()]), post_processor: byteLevel({ trim_offsets: false }), decoder: byteLevel() },
  deepseek: { model: bytes, first: [special("<｜begin▁of▁sentence｜>"), special("<｜end▁of▁sentence｜>")], added: [added("<｜tool▁sep｜>", { normalized: true }), added("TAG", { normalized: true })], normalizer: { type: "Sequence", normalizers: [] },
    pre_tokenizer: sequence([split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"), byteLevel()]), post_processor: byteLevel({ add_prefix_space: true, trim_offsets: false }), decoder: byteLevel() },
  command_r: { model: bytes, first: [special("<PAD>"), special("<UNK>"), special("<BOS_TOKEN>")], normalizer: { type: "NFC" }, pre_tokenizer: sequence([{ type: "Digits", individual_digits: true }, byteLevel({ use_regex: true })]), post_processor: bos("<BOS_TOKEN>"), decoder: byteLevel(),
    // Its digits are 0-9 only.
    skip: /[\ufeff\u0085]|(?![0-9])\p{N}/u },
  nfkc: { model: bytes, added: [special("</s>")], normalizer: { type: "Sequence", normalizers: [{ type: "NFKC" }, { type: "Lowercase" }, { type: "Replace", pattern: { Regex: " {2,}" }, content: " " }] }, pre_tokenizer: sequence([split(words("{1,3}"), "Isolated"), byteLevel()]), post_processor: null, decoder: byteLevel(),
    // JavaScript knows the final sigma, Rust's char::to_lowercase() does not; and a text whose normal
    // form happens to be "</s>" is taken for that token.
    skip: /[Σ\u{1d6a8}-\u{1d7cb}]|^<\/S>$/u },
  nfd: { model: bytes, added: [special("</s>")], normalizer: { type: "NFD" }, pre_tokenizer: sequence([split("\\s+", "Removed"), split("\\p{P}"), byteLevel()]), post_processor: null, decoder: byteLevel() },
  llama2: { model: characters, first: [special("<unk>"), special("<s>"), special("</s>")], added: [special("<mask>", { lstrip: false }), added("TAG", { normalized: true })], normalizer: { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, spaceToMark] }, pre_tokenizer: null, post_processor: bos("<s>"), decoder: fallbackDecoder(true), fallback: true },
  phi3: { model: characters, first: [special("<unk>"), special("<s>"), added("</s>", { rstrip: true })], added: [special("<|endoftext|>"), special("<|assistant|>", { rstrip: true }), special("<|user|>", { rstrip: true }), special("<|end|>", { rstrip: true })], normalizer: { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, spaceToMark] }, pre_tokenizer: null, post_processor: bos("<s>"), decoder: fallbackDecoder(true), fallback: true },
  llama_metaspace: { model: characters, first: [special("<unk>"), special("<s>"), special("</s>")], normalizer: null, pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false }, post_processor: bos("<s>"), decoder: fallbackDecoder(true), fallback: true, array_merges: true },
  gemma: { model: characters, first: [special("<pad>"), special("<eos>"), special("<bos>"), special("<unk>")], added: [added("\n\n"), added("\t\t\t"), added("▁▁"), added("<start_of_turn>"), added("<end_of_turn>")], normalizer: spaceToMark, pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false }, post_processor: bos("<bos>"), decoder: fallbackDecoder(false), fallback: true, array_merges: true },
};

/* Plain BPE training: the most frequent pair, of equals the one seen first. */
function train(tokenizer, first, symbols) {
  const firstId = first.length, taken = new Set(first.map((t) => t.content));
  const counts = new Map();
  for (const text of texts) {
    const normal = tokenizer.normalizer ? tokenizer.normalizer(text) : text;
    const pieces = tokenizer.pre_tokenizer ? tokenizer.pre_tokenizer(normal, { section_index: 0 }) : [normal];
    // Without a pre-tokenizer pieces are whole texts: train on words, so merges are word-like.
    for (const piece of pieces) for (const word of piece.match(/[▁ ]*[^▁ ]+|[▁ ]+/gu) ?? []) if (word.length < 60) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const list = [...counts].map(([word, n]) => ({ word: [...word], n }));
  const vocab = new Map(), merges = [];
  for (const s of symbols) vocab.set(s, firstId + vocab.size);
  while (merges.length < MERGES) {
    const pairs = new Map();
    for (const { word, n } of list)
      for (let i = 0; i + 1 < word.length; i++)
        if (vocab.has(word[i]) && vocab.has(word[i + 1])) {
          const key = word[i] + "\u0001" + word[i + 1];
          pairs.set(key, (pairs.get(key) ?? 0) + n);
        }
    let best = null, most = 1;
    for (const [key, n] of pairs) if (n > most && !taken.has(key.replace("\u0001", ""))) [best, most] = [key, n];
    if (!best) break;
    const [a, b] = best.split("\u0001");
    merges.push([a, b]);
    if (!vocab.has(a + b)) vocab.set(a + b, firstId + vocab.size);
    for (const entry of list)
      for (let i = 0; i + 1 < entry.word.length; i++)
        if (entry.word[i] === a && entry.word[i + 1] === b) entry.word.splice(i, 2, a + b);
  }
  return { vocab, merges };
}

function commonCharacters(tokenizer) { // those of at least 3 texts, so that some are left to fall back
  const counts = new Map();
  for (const text of texts) for (const c of new Set(tokenizer.normalizer ? tokenizer.normalizer(text) : text)) counts.set(c, (counts.get(c) ?? 0) + 1);
  return [...counts].filter(([c, n]) => n >= 3 && c !== " ").map(([c]) => c).sort();
}

function build(kind) {
  const first = (kind.first ?? []).map((t, id) => ({ id, ...t }));
  const json = { version: "1.0", truncation: null, padding: null, added_tokens: first, normalizer: kind.normalizer, pre_tokenizer: kind.pre_tokenizer, post_processor: null, decoder: kind.decoder,
    model: { type: "BPE", dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null, ...kind.model, vocab: Object.fromEntries(first.map((t) => [t.content, t.id])), merges: [] } };
  const tokenizer = new Tokenizer({ ...json, model: { ...json.model, vocab: { "<unk>": 0 } } }, {});
  const byteTokens = kind.fallback ? Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`) : [];
  const symbols = kind.fallback ? [...byteTokens, ...new Set(["▁", ...commonCharacters(tokenizer)])] : alphabet;
  const { vocab, merges } = train(tokenizer, first, symbols);
  for (const [piece, id] of vocab) json.model.vocab[piece] = id;
  json.model.merges = kind.array_merges ? merges : merges.map(([a, b]) => `${a} ${b}`);
  let next = first.length + vocab.size;
  for (const t of kind.added ?? []) json.added_tokens.push({ id: json.model.vocab[t.content] ?? next++, ...t });
  const post = JSON.stringify(kind.post_processor, (key, value) => (key === "ids" ? value.map((name) => json.added_tokens.find((t) => t.content === name).id) : value));
  json.post_processor = JSON.parse(post);
  return json;
}

const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const pack = (ids) => ids.map((id) => digits[id >> 6] + digits[id & 63]).join("");

let state = 7;
const random = (below) => (state = (state * 48271) % 2147483647) % below;

function decodeCases(kind, tokenizer, size) {
  const plain = { clean_up_tokenization_spaces: false };
  const lists = texts.filter((t) => t && !t.includes("\ufeff") && t.length < 200).filter((_, i) => i % 6 === 0).map((t) => tokenizer.encode(t).ids).filter((ids) => ids.length);
  // With byte fallback, bytes that are no text are replaced in another way: only what was encoded.
  if (!kind.fallback) for (let i = 0; i < 150; i++) lists.push(Array.from({ length: 1 + random(10) }, () => random(size)));
  return lists.map((ids) => [pack(ids), tokenizer.decode(ids, { skip_special_tokens: false, ...plain }), tokenizer.decode(ids, { skip_special_tokens: true, ...plain })]);
}

const lines = (list) => "[\n" + list.map((x) => JSON.stringify(x)).join(",\n") + "\n]";

for (const [name, kind] of Object.entries(kinds)) {
  const json = build(kind);
  const tokenizer = new Tokenizer(structuredClone(json), {});
  const size = Math.max(...Object.values(json.model.vocab), ...json.added_tokens.map((t) => t.id)) + 1;
  const ids = texts.map((t) => (kind.skip?.test(t) ? null : pack(tokenizer.encode(t).ids)));
  mkdirSync(here(name), { recursive: true });
  writeFileSync(here(`${name}/tokenizer.json`), JSON.stringify(json) + "\n");
  writeFileSync(here(`${name}/expected.json`), `{"ids": ${lines(ids)},\n"decode": ${lines(decodeCases(kind, tokenizer, size))}}\n`);
  console.log(name, size, "tokens,", ids.filter((x) => x === null).length, "texts not compared");
}
