// store.js - conversations and settings, in this browser only.
//
//   conversation  { id, title, changed, messages }                  newest first
//   message       { role: 'user', text }
//                 { role: 'assistant', versions: [answer], at }     `at` is the one shown and sent on
//   answer        { text, thoughts, finish, error, stats }          finish: null while it runs
//
// Each conversation has an entry of its own, so that a growing one does not write all others again.

const listName = 'llmd.conversations';
const itemName = (id) => `llmd.conversation.${id}`;

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise; // storage is forbidden, or holds something else
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function erase(name) {
  try {
    localStorage.removeItem(name);
  } catch {
    /* nothing was kept */
  }
}

export const settingsStore = {
  load: () => read('llmd.settings', {}),
  save: (values) => write('llmd.settings', values),
};

/** The conversation that this tab shows, over a reload. */
export const openId = {
  get: () => {
    try {
      return sessionStorage.getItem('llmd.open');
    } catch {
      return null;
    }
  },
  set: (id) => {
    try {
      sessionStorage.setItem('llmd.open', id);
    } catch {
      /* a reload begins anew */
    }
  },
};

export class History {
  #entries = [];

  /** { id, title, changed } of each, as they are now: other tabs write, too. */
  get entries() {
    this.#entries = read(listName, this.#entries);
    return this.#entries;
  }

  /** act(): other tabs have changed the list. */
  onChange(act) {
    addEventListener('storage', (e) => e.key === listName && act());
  }

  load(id) {
    return read(itemName(id), null);
  }

  /** Where there is no more room the oldest conversations go. */
  save(conversation) {
    const { id, title } = conversation;
    conversation.changed = Date.now();
    const entries = [{ id, title, changed: conversation.changed }, ...this.entries.filter((e) => e.id !== id)];
    this.#entries = entries;
    while (!(write(itemName(id), conversation) && write(listName, entries))) {
      if (entries.length <= 1) return;
      erase(itemName(entries.pop().id));
    }
  }

  remove(id) {
    erase(itemName(id));
    this.#entries = this.entries.filter((e) => e.id !== id);
    write(listName, this.#entries);
  }
}

export function newConversation() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return { id: Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(''), title: '', changed: 0, messages: [] };
}

/** The answer that is shown. */
export const shown = (message) => message.versions[message.at];
