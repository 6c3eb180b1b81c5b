// markdown.js - a model's markdown to elements that cannot do harm.
//
// marked makes markup, with HTML in the source shown as text; DOMPurify lets through what is listed here and nothing
// else, and gives nodes, so that no string of ours ever becomes markup.  Pictures are shown as links: nothing is
// fetched from elsewhere.
import DOMPurify from 'dompurify';
import highlighter from 'highlight.js/lib/common';
import { Marked } from 'marked';
import { copyButton, el } from './dom.js';

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => text.replace(/[&<>"']/g, (c) => escapes[c]);

// The depths of headings that the text at hand has, ascending: they become h3, h4 ..., below the page's own headings and
// without a gap.
let depths = [];

const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  renderer: {
    html: ({ text }) => escape(text),
    image({ href, text }) {
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    heading({ tokens, depth }) {
      const level = Math.min(3 + depths.indexOf(depth), 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    code({ text, lang }) {
      const name = (lang ?? '').split(/\s/)[0].toLowerCase();
      const known = highlighter.getLanguage(name);
      const body = known ? highlighter.highlight(text, { language: name, ignoreIllegals: true }).value : escape(text);
      return `<pre title="${escape(name)}"><code>${body}</code></pre>`;
    },
  },
});

const purifier = DOMPurify(window);
purifier.setConfig({
  ALLOWED_TAGS: ('a b blockquote br code del em h3 h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th ' +
    'thead tr ul').split(' '),
  ALLOWED_ATTR: ['align', 'class', 'href', 'start', 'title'],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
});
purifier.addHook('uponSanitizeAttribute', (node, data) => {
  if (data.attrName === 'class') data.keepAttr = data.attrValue.split(/\s+/).every((c) => /^hljs-[\w-]+_?$|^[a-z]+_$/.test(c));
});
purifier.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer nofollow');
});

function frameCode(pre) {
  const name = pre.title;
  const box = el('div.code');
  pre.removeAttribute('title');
  pre.tabIndex = 0; // it may scroll
  pre.replaceWith(box);
  box.append(el('div.code-bar', null, el('span', null, name || 'text'), copyButton('Copy the code', () => pre.textContent)), pre);
}

function frameTable(table) {
  const box = el('div.table', { tabindex: 0, role: 'group', 'aria-label': 'Table' });
  table.replaceWith(box);
  box.append(table);
}

/** A fragment to put into the page. */
export function render(text) {
  const tokens = marked.lexer(text);
  const found = new Set();
  marked.walkTokens(tokens, (token) => token.type === 'heading' && found.add(token.depth));
  depths = [...found].sort();
  const fragment = purifier.sanitize(marked.parser(tokens));
  fragment.querySelectorAll('pre').forEach(frameCode);
  fragment.querySelectorAll('table').forEach(frameTable);
  return fragment;
}
