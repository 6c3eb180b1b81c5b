// dom.js - making elements, without a string of markup anywhere.

/** el('a.note', { href: '#', onclick: f }, 'text', otherElement); null children are left out. */
export function el(kind, props, ...children) {
  const [tag, ...classes] = kind.split('.');
  const e = document.createElement(tag);
  if (classes.length) e.className = classes.join(' ');
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (name === 'dataset') Object.assign(e.dataset, value);
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

export const byId = (id) => document.getElementById(id);

const svg = 'http://www.w3.org/2000/svg';
const shapes = {
  copy: 'M9 9h10v11H9zM5 15V4h10',
  done: 'M5 12.5l4.5 4.500L19 7.5',
  again: 'M19 12a7 7 0 1 1-2.2-5.100M19 4v4h-4',
  edit: 'M5 19h3.500L19 8.5 15.5 5 5 15.500z',
  trash: 'M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13',
  left: 'M14 7l-5 5 5 5',
  right: 'M10 7l5 5-5 5',
  more: 'M5 12h14M13 6l6 6-6 6',
};

/** A line drawing for a button that says in words what it does. */
export function icon(name) {
  const s = document.createElementNS(svg, 'svg');
  const path = document.createElementNS(svg, 'path');
  s.setAttribute('viewBox', '0 0 24 24');
  s.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', shapes[name]);
  s.append(path);
  return s;
}

export function iconButton(name, label, onclick) {
  return el('button.tool', { type: 'button', 'aria-label': label, title: label, onclick }, icon(name));
}

/** The clipboard; where the page is not of a secure origin, by way of a selection. */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = el('textarea.offscreen', { 'aria-hidden': 'true' });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** A copy button that shows for a moment that it has copied. */
export function copyButton(label, text) {
  const button = iconButton('copy', label, async () => {
    await copyText(text());
    button.replaceChildren(icon('done'));
    setTimeout(() => button.replaceChildren(icon('copy')), 1500);
  });
  return button;
}
