// check.mjs - are the objects of deploy/kubernetes what Kubernetes takes, and do they fit this server?
//
//   node check.mjs SOURCES FILE...      each FILE is what `kubectl kustomize` made of one overlay
//   node check.mjs SOURCES --write-rules
//
// Schemas and types are those of the published OpenAPI documents (kubernetes-models): the schema finds wrong values and
// what is missing, the compiler what is misspelt, since Kubernetes' schemas allow any further field.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import YAML from 'yaml';

const [sources, ...files] = process.argv.slice(2);
const kubernetes = path.join(sources, 'deploy/kubernetes');
const rules_file = path.join(kubernetes, 'components/prometheus-operator/rules.yaml');

function module_of(object) {
    const [group, version] = object.apiVersion.includes('/') ? object.apiVersion.split('/') : ['', object.apiVersion];
    if (group === 'monitoring.coreos.com') return `@kubernetes-models/prometheus-operator/${group}/${version}`;
    return group ? `kubernetes-models/${group}/${version}` : `kubernetes-models/${version}`;
}

async function check_schema(object) {
    const models = await import(module_of(object));
    assert.ok(models[object.kind], `${object.apiVersion} has no ${object.kind}`);
    new models[object.kind](object).validate();
}

// What the compiler says of the object as a literal of its type; '' when nothing.
function misspelt(objects) {
    const name = path.join(import.meta.dirname, 'objects.ts');
    const text = objects
        .map((o, i) => `import type { I${o.kind} as T${i} } from '${module_of(o)}';\nexport const o${i}: T${i} = ${JSON.stringify(o)};\n`)
        .join('');
    const options = { strict: true, noEmit: true, skipLibCheck: true, module: ts.ModuleKind.ESNext,
                      moduleResolution: ts.ModuleResolutionKind.Bundler, types: [] };
    const host = ts.createCompilerHost(options);
    const read = host.getSourceFile.bind(host);
    host.getSourceFile = (file, ...rest) =>
        file === name ? ts.createSourceFile(file, text, ts.ScriptTarget.ES2022) : read(file, ...rest);
    const diagnostics = ts.getPreEmitDiagnostics(ts.createProgram([name], options, host));
    return diagnostics.map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n')).join('\n');
}

function one(objects, kind) {
    const found = objects.filter((o) => o.kind === kind);
    assert.equal(found.length, 1, `${found.length} objects of kind ${kind}`);
    return found[0];
}

// Settings by the names that config.def gives the environment.
function known_variables() {
    const names = new Set();
    const text = fs.readFileSync(path.join(sources, 'common/config.def'), 'utf8');
    for (const [, name, rest] of text.matchAll(/^(?:NUM|REAL|TEXT|CHOICE)\((\w+), (.*)$/gm)) {
        names.add(`LLMD_${name.toUpperCase()}`);
        for (const alias of rest.match(/(?:LIVE|RESTART), "([^"]*)"/)[1].split('|')) names.add(alias);
    }
    return names;
}

function check_fit(objects) {
    const deployment = one(objects, 'Deployment'), settings = one(objects, 'ConfigMap').data;
    const pod = deployment.spec.template.spec, container = pod.containers[0];
    const labels = deployment.spec.template.metadata.labels;
    const variables = known_variables(), routes = fs.readFileSync(path.join(sources, 'gateway/routes.c'), 'utf8');

    assert.equal(container.envFrom[0].configMapRef.name, one(objects, 'ConfigMap').metadata.name);
    for (const name of [...Object.keys(settings), ...(container.env ?? []).map((e) => e.name)])
        assert.ok(variables.has(name), `no setting is called ${name}`);
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe'])
        assert.ok(routes.includes(`"${container[probe].httpGet.path}"`), `${probe}: no such route`);
    assert.ok(pod.terminationGracePeriodSeconds >
              Number(settings.LLMD_DRAIN_LEAD_S) + Number(settings.LLMD_DRAIN_TIMEOUT_S), 'killed while it drains');
    assert.ok(Number(settings.LLMD_DRAIN_LEAD_S) >=
              3 * container.readinessProbe.periodSeconds, 'refuses before it was seen that it is not ready');
    for (const selector of [deployment.spec.selector.matchLabels, one(objects, 'Service').spec.selector,
                            one(objects, 'PodDisruptionBudget').spec.selector.matchLabels,
                            one(objects, 'NetworkPolicy').spec.podSelector.matchLabels])
        for (const [key, value] of Object.entries(selector)) assert.equal(labels[key], value);
    for (const scaler of objects.filter((o) => o.kind === 'HorizontalPodAutoscaler'))
        assert.equal(scaler.spec.scaleTargetRef.name, deployment.metadata.name);
    const mounted = new Set(container.volumeMounts.map((m) => m.name));
    assert.deepEqual(new Set(pod.volumes.map((v) => v.name)), mounted);
}

function rules() {
    const text = fs.readFileSync(path.join(sources, 'deploy/monitoring/llmd.rules.yml'), 'utf8');
    return { apiVersion: 'monitoring.coreos.com/v1', kind: 'PrometheusRule',
             metadata: { name: 'llmd', labels: { 'app.kubernetes.io/name': 'llmd' } }, spec: YAML.parse(text) };
}

const tests = {
    async the_rules_are_those_of_deploy_monitoring() {
        assert.deepEqual(YAML.parse(fs.readFileSync(rules_file, 'utf8')), rules());
    },
    async what_is_wrong_is_found() {
        const pod = { containers: [{ name: 'c', imag: 'x' }] };
        const misspelling = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: pod };
        const wrong = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: { containers: [{ name: 3 }] } };
        assert.match(misspelt([misspelling]), /imag/);
        await assert.rejects(check_schema(wrong), /name must be string/);
    },
};
for (const file of files) {
    const objects = () => YAML.parseAllDocuments(fs.readFileSync(file, 'utf8')).map((d) => d.toJS());
    const name = path.basename(file, '.yaml');
    tests[`${name}_has_valid_objects`] = async () => {
        for (const object of objects()) await check_schema(object);
        assert.equal(misspelt(objects()), '');
    };
    tests[`${name}_fits_the_server`] = async () => check_fit(objects());
}

if (files[0] === '--write-rules') {
    fs.writeFileSync(rules_file, '# Made of deploy/monitoring/llmd.rules.yml (tests/deploy/kubernetes/check.mjs --write-rules).\n' +
                                     YAML.stringify(rules(), { lineWidth: 0 }));
    process.exit(0);
}
let code = 0;
for (const [name, test] of Object.entries(tests)) {
    console.log(`[ RUN      ] ${name}`);
    try {
        await test();
        console.log(`[       OK ] ${name}`);
    } catch (e) {
        console.log(`FAILED: ${e.message}`);
        code = 1;
    }
}
process.exit(code);
