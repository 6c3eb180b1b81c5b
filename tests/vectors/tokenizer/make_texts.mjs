// make_texts.mjs - the strings of texts.json, on which every tokenizer of this folder is tried.
//
// Hand-written ones first, then random mixtures of fragments from a fixed seed.  Characters newer than
// Unicode 14 are left out: the engines know different Unicode versions.
import { writeFileSync } from "node:fs";

const handwritten = [
  "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "\t\t\t", " \n ", "\n \n", "a", " a", "a ", "  a", "a  ", " a b ",
  "Hello, world!", "hello world", " Hello", "Hello\nworld", "Hello\r\nworld\r\n", "Once upon a time, there was a little girl named Lily.",
  "She said, \"I can't do it.\" They're sure it'll be what we've had; I'd say so, I'm Tom's friend.", "I'M SURE IT'S HE'LL WE'VE",
  "don’t won’t ’tis", "'s's 't 're've", "x'sy", "'", "''", "don't'", "1", "12", "123", "1234", "12345678901234567890", "3.14159", "-1e10", "1,000,000",
  "a1b2c3", "v1.2.3-rc4", "0x1F600", "٣٤٥", "１２３", "Ⅳ ½ ² ①", "x²+y²=z²", "192.168.0.1:8080", "foo@example.com", "http://example.com/a?b=c&d=%20#e",
  "def f(x):\n    return x + 1\n", "int main(void)\n{\n\treturn 0;\n}\n", "if (a && b || !c) { d->e[0] = *f; }", "<div class=\"a\">text</div>", "{\"a\": [1, 2, null]}",
  "SELECT * FROM t WHERE x='y';", "a/b\\c", "....", "...", "…", "!?!?", "---", "———", "~~~~~~~~~~", "##########", "_____", "$$$", "a_b-c", "(((", "[[]]", "/* */ //",
  "ñ", "n\u0303", "é e\u0301 e\u0301\u0323 e\u0323\u0301", "Å \u212b A\u030a", "ﬁ ﬂ ﬃ ﬀ", "ｆｕｌｌｗｉｄｔｈ　ＴＥＸＴ", "ﾊﾟﾋﾟ ｶﾞ", "Straße STRASSE ẞ", "İstanbul ıI", "Ωμέγα ὀδός ΐ",
  "Привет, мир! Ещё раз.", "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "العَرَبِيَّة", "नमस्ते दुनिया", "हिन्दी क्षत्रिय", "สวัสดีชาวโลก", "ภาษาไทย", "你好，世界！", "中文字符123abc", "こんにちは世界", "カタカナひらがな漢字",
  "안녕하세요 세계", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한국어\u11ab", "வணக்கம்", "ਸਤਿ", "ជំរាបសួរ", "မင်္ဂလာပါ", "ሰላም", "ᚠᛇᚻ", "𐍈𐌰𐌹", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "𠜎𠜱𠝹",
  "😀", "😀😀😀", "👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🇩🇪🇫🇷🇯🇵", "☺️ ☺", "1️⃣2️⃣", "❤️", "👍🏿👍🏻", "a😀b", " 😀 ", "🤷‍♂️ maybe", "🧑‍💻🖖",
  "\u0000", "a\u0000b", "\u0001\u0002\u0003", "\u001b[31mred\u001b[0m", "\u007f", "\u0080\u009f", "a\u00a0b", "\u00a0", "\u00ad", "a\u00adb", "\u0085", "a\u0085b", "\u180e", "a\u180eb",
  "\u200b", "a\u200bb", "\u200c\u200d", "\u2028\u2029", "a\u2028b", "\u2003\u2009 x", "\u3000", "\u3000あ", "\ufeff", "\ufeffabc", "abc\ufeff", "\ufffd", "\uffff", "\ufffe", "\ufdd0", "\ue000", "\u{10ffff}", "\u{10fffe}", "\u{f0000}", "\ud7ff", "\ud7ff\ue000",
  "\u202eabc\u202c", "\u200eltr\u200f", "\u2066x\u2069", "a\u0300\u0301\u0302\u0303\u0304", "Z\u0351\u036b\u0343a\u0327l\u0348g\u0360o\u032c", "\u0301", "\u0301a", " \u0301", "\u0344", "\u0f73\u0f71\u0f72", "\u09c7\u09be", "\u0b47\u0b3e", "\u1100\u1161", "\uac00\u11a8",
  "▁", "▁▁", "▁a", "a▁b", " ▁ ", "▁ ▁", "Ġ", "Ġhello", "Ċ", "Ã©", "â€™", "\u2581hello", "Ā",
  "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id", "<|eot_id|>>", "<<s>>", "< s>", "<s >", "<S>", "</S>",
  "<s><s>", "a<s>b", "a <s> b", "<s> a", "</s></s>", "x</s>y", "<0x0A>", "<0x41>", "<0xFF>", "<tool_call>", "a<tool_call>b", "<think>\nhm\n</think>", "[INST] hi [/INST]", "<start_of_turn>user\nhi<end_of_turn>\n",
  "<｜tool▁sep｜>", "x<｜tool▁sep｜>y", "<｜begin▁of▁sentence｜>", "<mask>", "a <mask> b", "a  <mask>  b", "word<mask>word", "wordTAGword", "TAG", "a TAG b", "TAGs", "TAG.", "éTAG", " <lstrip> x <rstrip> y",
  "the the the the", "thethethe", "ababababababab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\n\n\n\n\n", "a\n\n\nb", "a \n b", "a  \n", " \n\n x", "\t\tx\t y", "x   y    z     ", "\r", "\r\r", "a\rb", "\n\r", "\u000b\u000c",
  "Mr. Smith's 3rd-grade class (№ 42) — “quoted” ‘text’ «guillemets»", "camelCaseWord PascalCase HTTPServer iPhone", "ALLCAPS lower Title", "ǅ ǆ Ǆ", "ʰʷ ªº", "ЁЖ ёж", "œuvre Œ", "ℌ ℵ ⅓ ⅷ", "♠♥♦♣ ←↑→↓ ∑∏∫ ≤≥≠", "€£¥₿¢", "©®™", "H₂O CO₂", "❶❷❸", "㊙㊗", "㌀㍿",
  "mixed 中文and English", "日本語 text 混在", "price: $19.99!", "100%", "50°C", "a+b=c", "x<y>z", "tab\there", "trailing   ", "   leading", "a\u3000b", "semi;colon:comma,", "e.g., i.e.", "O'Neil's", "rock'n'roll", "'90s", "the '90s'", "l'été d'août",
  "\u{1f1e6}", "\u{e0067}\u{e007f}", "\u20e3", "\u0e33", "ำ", "\u0eb3", "ﷺ", "ﷺﷺ", "\u2126", "\u1e9b\u0323", "\u03d3\u03d4", "ⓐⓑ", "½¼", "ĳ Ĳ", "ŉ", "ǰ", "①②", "㎏", "ﾞﾟ",
];

const fragments = [
  "the", " the", "The", " girl", " and", "ing", " Lily", " little", ",", ".", "!", "?", " said", "\"", "'s", "'t", "n't", "'", "-", "_", "(", ")", "[", "{", "<", ">", "/", "\\", "@", "#", "*", "|", "&", "=", "+", ";", ":", "~", "^", "`", "%", "$",
  " ", "  ", "   ", "     ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "\u2009", "\u2028", "\u200b", "\u180e",
  "0", "1", "42", "007", "1234", "99999", "3.14", "٣", "５", "²", "Ⅷ",
  "a", "b", "x", "Z", "Q", "ß", "é", "e\u0301", "ñ", "ü", "u\u0308", "\u0301", "\u0323", "ø", "Æ", "ﬁ", "ı", "İ", "Ж", "привет", "Ω", "λ", "ς", "א", "ל\u05c1", "م", "سلام", "न", "मस्", "ก", "สวั", "你", "世界", "中", "の", "カ", "ガ", "ｶﾞ", "한", "글", "\u1100\u1161", "ሰ", "𝔘", "𐍈", "𠜎",
  "😀", "👨‍👩‍👧", "👍🏽", "🇩🇪", "❤️", "☺", "…", "—", "“", "”", "’", "«", "€", "™", "→", "∑",
  "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_end|>", "<tool_call>", "<0x0A>", "▁", "Ġ", "TAG", "<mask>", "\u0000", "\u001b", "\u007f", "\ufffd", "\ue123", "\u{10fffd}",
  "http://", ".com", "return", "    return", "}\n", ");", "==", "!=", "->", "::", "int", "const", "Once", " upon", " time",
];

let state = 20240607n;
function random(below) { // Knuth's MMIX generator
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
  return Number((state >> 33n) % BigInt(below));
}

const texts = [...handwritten];
while (texts.length < 1100) {
  let text = "";
  for (let n = 1 + random(9); n > 0; n--) text += fragments[random(fragments.length)];
  texts.push(text);
}
texts.push("ab".repeat(700), " ".repeat(300) + "x", "9".repeat(400), "the quick brown fox ".repeat(60), "漢字".repeat(150), "\n".repeat(200), "e\u0301".repeat(200), "!?".repeat(200), "😀".repeat(100), "a\u0323\u0301".repeat(100));

writeFileSync(new URL("texts.json", import.meta.url), "[\n" + texts.map((t) => JSON.stringify(t)).join(",\n") + "\n]\n");
