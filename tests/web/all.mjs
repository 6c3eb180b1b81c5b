// all.mjs - every test, in one process: node --test-reporter=./reporter.mjs all.mjs
import './chat.test.mjs';
import './status.test.mjs';
