// docs.js - the API's description for people: reads openapi.json of the same server and shows it.
//
// On its own, without modules: this page is there also where npm was not.
(() => {
  const make = (kind, text, ...children) => {
    const [tag, ...classes] = kind.split('.');
    const e = document.createElement(tag);
    if (classes.length) e.className = classes.join(' ');
    if (text) e.textContent = text;
    e.append(...children);
    return e;
  };
  const resolve = (doc, s) => (s && s.$ref ? s.$ref.split('/').slice(1).reduce((o, k) => o[k], doc) : s);

  function typeOf(s) {
    const type = [s.type || 'any'].flat().join(' or ');
    const range = s.minimum !== undefined || s.maximum !== undefined ? `, ${s.minimum ?? '...'} to ${s.maximum ?? '...'}` : '';
    return type + range;
  }

  /* Rows of a schema's members, those of members that are objects below them. */
  function addRows(doc, body, schema, prefix) {
    for (const [name, raw] of Object.entries(schema.properties || {})) {
      const s = resolve(doc, raw);
      const isRequired = (schema.required || []).includes(name);
      body.append(make('tr', '', make('td', '', make('code', prefix + name)),
        make('td', typeOf(s) + (isRequired ? ', required' : '')), make('td', s.description)));
      addRows(doc, body, s, `${prefix}${name}.`);
      if (s.items) addRows(doc, body, s.items, `${prefix}${name}[].`);
    }
  }

  function table(doc, schema) {
    const body = make('tbody');
    addRows(doc, body, schema, '');
    const box = make('div.table', '', make('table', '', make('thead', '', make('tr', '',
      make('th', 'member'), make('th', 'type'), make('th', 'meaning'))), body));
    box.tabIndex = 0; // it may scroll
    box.setAttribute('role', 'group');
    box.setAttribute('aria-label', 'Members of the body');
    return box;
  }

  function operation(doc, method, path, op) {
    const inside = make('div.inside');
    const content = op.requestBody && op.requestBody.content['application/json'].schema;
    const schemas = content ? content.oneOf || [content] : [];
    if (op.security && !op.security.length) inside.append(make('p', 'Needs no key.'));
    if (schemas.length > 1) inside.append(make('p', 'The body is one of these:'));
    for (const s of schemas) inside.append(table(doc, resolve(doc, s)));
    for (const [status, raw] of Object.entries(op.responses))
      inside.append(make('div', '', make('code', status), ' ', resolve(doc, raw).description));
    return make('details', '', make('summary', '', make(`span.method.${method}`, method.toUpperCase()), make('code', path),
      make('span.note', op.summary)), inside);
  }

  function show(doc) {
    const groups = new Map();
    for (const [path, item] of Object.entries(doc.paths))
      for (const [method, op] of Object.entries(item)) {
        const tag = op.tags[0];
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push(operation(doc, method, path, op));
      }
    for (const [tag, list] of groups) document.getElementById('routes').append(make('h2', tag), ...list);
    document.getElementById('about').textContent = `${doc.info.description} Version ${doc.info.version}.`;
  }

  fetch('openapi.json').then((r) => r.json()).then(show).catch((e) => {
    document.getElementById('about').textContent = `openapi.json could not be read: ${e}`;
  });
})();
