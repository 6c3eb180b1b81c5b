// theme.js - light or dark, before the page is drawn: in the head of each page, without modules.
(() => {
  const names = { auto: 'as the system', light: 'light', dark: 'dark' };
  const order = Object.keys(names);
  const root = document.documentElement;

  function read() {
    try {
      const name = localStorage.getItem('llmd.theme');
      return order.includes(name) ? name : 'auto';
    } catch {
      return 'auto'; // storage is forbidden
    }
  }

  function apply(name) {
    if (name === 'auto') delete root.dataset.theme;
    else root.dataset.theme = name;
    const button = document.getElementById('theme');
    if (!button) return;
    button.dataset.name = name;
    button.setAttribute('aria-label', `Colours: ${names[name]}`);
    button.title = `Colours: ${names[name]}`;
  }

  apply(read());
  document.addEventListener('DOMContentLoaded', () => {
    apply(read());
    document.getElementById('theme')?.addEventListener('click', () => {
      const next = order[(order.indexOf(read()) + 1) % order.length];
      try {
        localStorage.setItem('llmd.theme', next);
      } catch {
        /* it lasts as long as the page */
      }
      apply(next);
      document.dispatchEvent(new Event('themechange'));
    });
  });
})();
