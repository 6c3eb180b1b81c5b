"""Small templates, each for one corner of the language; make_vectors.py asks the real engine.

Left out on purpose, since the answers differ: list.pop() (refused here, as by newer versions of the
engine), integers past 64 bits, the name `self`, and text forms that show an address."""

VARS = {
    "s": "Hello, World",
    "u": "Grüße 🦙 你好",
    "ws": " \t\n x y \u00a0\u2003",
    "n": 7,
    "neg": -7,
    "f": 2.5,
    "t": True,
    "no": False,
    "nil": None,
    "l": [3, 1, 2],
    "e": [],
    "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": [1, 2], "items": "shadow", "x y": {"z": None}},
    "people": [
        {"name": "Eve", "age": 30, "job": {"t": "dev"}},
        {"name": "bob", "age": 25, "job": {"t": "ops"}},
        {"name": "Al", "age": 30},
    ],
    "deep": {"k": [{"v": [1, {"w": "found"}]}]},
    "mixed": [0, 1.0, "", "a", None, True, False, [], {}],
    "q": "it's \"quoted\" \\ \n\t\r\u0007é\u200b",
}

EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 / 2
6 / 2
7 // 2
neg // 2
7 // neg
neg % 3
7 % -3
2.5 % 1
-2.5 % 2
7.5 // 2
-7.5 // 2
1 / 0
1 // 0
1 % 0
1.0 / 0
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
0 ** -1
2 ** 0.5
4 ** 0.5
0.1 + 0.2
1e3
1e16
1e15
123456789012345678.0
1e-4
1e-5
1.5e300 * 1e10
1e308 * 10
-0.0
1_000_000
0x1f
0b101
0o17
1.0
100.0
3.14159
12345.678
1/3
2/3
True + True
true + 1
true * 2.5
-true
+true
+f
-f
--n
-s
+s
not n
not not n
'a' + 'b'
'a' + 1
1 + 'a'
'a' + none
'ab' * 3
3 * 'ab'
'ab' * 0
'ab' * -1
'ab' * 1.5
[1] + [2]
[1] * 3
[1] + (2,)
(1,) + (2,)
(1, 2) * 2
l - l
'a' ~ 1 ~ none ~ 1.0 ~ true ~ missing ~ [1]
1 ~ 2
'a' 'b' "c"
s[0]
s[-1]
s[100]
s[1:4]
s[:5]
s[-5:]
s[::-1]
s[::2]
s[10:2:-3]
s[5:2]
s[100:]
s[-100:3]
s[none:none]
s['x']
s[1.5]
s[1:2:0]
u[0]
u[6]
u[6:8]
u[::-1]
u|length
u|list
u[-2:]
u.upper()
u.lower()
u.find('🦙')
u.index('你')
u.count('ü')
'straße'.upper()
'straße'.title()
'ÀÉ'.lower()
'éa'.capitalize()
'Ǆx'|lower
l[0]
l[-1]
l[5]
l[1:]
l[:-1]
l[::-1]
l[5:]
l[1:2]
l['0']
l[true]
l[1.0]
(1, 2, 3)[1:]
(1, 2, 3)
(1,)
()
1, 2
[1, 'a', none, 1.5, true]
['it\'s', 'q"q', 'b\'"', 'n\n', 'é', '\x07']
{'a': 1, 2: [3], none: (4,)}
{}
[[]]
d
d.b
d['b']
d.a[1]
d.items
d['items']
d.items()
d.keys()
d.values()
d.items()|list
d.keys()|list|tojson
d.get('b')
d.get('zz')
d.get('zz', 5)
d.get('items')
d.get()
d.zz
d.zz.yy
d['zz']['yy']
d.zz is defined
d['x y'].z
d['x y'].z.q
d['x y'].z is none
d[l]
d[(1, 2)]
d|length
d|list
d|first
d|last
d|join('-')
'b' in d
'z' in d
'z' not in d
1 in l
5 in l
5 not in l
l in [[3, 1, 2]]
'ell' in s
'' in s
1 in s
none in l
1 in n
1 in none
'a' in missing
missing in l
missing in s
missing in d
true in [1]
1.0 in l
'1' in l
missing
missing.x
missing['x']
missing()
missing + 1
1 + missing
'a' + missing
missing + 'a'
missing == missing
missing == other
missing == none
missing == ''
missing != none
missing < 1
missing is defined
missing is undefined
missing is none
missing|default('d')
missing|default
missing|d('x')
nil|default('d')
nil|default('d', true)
''|default('d')
''|default('d', true)
''|default('d', boolean=true)
0|default(5, true)
missing.x|default('d')
d.zz|default('d')
missing|length
missing|list
missing|join(',')
missing|upper
missing|trim
missing|tojson
missing|int
missing|string
missing|first
missing|last
missing|sort
missing|items|list
missing|dictsort
missing|map('upper')|list
missing|selectattr('a')|list
missing|reverse|list
missing|replace('a', 'b')
missing|indent
missing and 1
missing or 'x'
not missing
missing if missing else 'no'
-missing
missing % 2
missing * 2
missing is iterable
missing is sequence
missing is mapping
missing is string
missing is callable
nil.x
nil['x']
nil.x.y
nil + 1
nil == none
nil is none
none is none
None
True
False
none|string
none|length
none|list
none|upper
none|int
none|trim
n.x
n['x']
n.x.y
n()
s()
s.nope
s.nope()
l.append
l.append(1)
l.sort()
d.update({})
d.pop('b')
d.clear()
d.setdefault('q', 1)
[].append(1)
l.extend([1])
l.index(1)
l.index(9)
l.count(1)
l.__class__
s.__class__
s.__class__.__mro__
d.__len__
''.__len__()
1 == 1.0
1 == true
0 == false
'1' == 1
1 == '1'
none == false
[] == []
[1, [2]] == [1, [2.0]]
[1] == (1,)
{'a': 1} == {'a': 1.0}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
{'a': 1} == {'a': 2}
'a' == 'a'
'a' != 'b'
1 != 1
1 < 2
1 < 2 < 3
1 < 3 < 2
3 > 2 > 1
1 == 1 == 1
1 < 2 == true
1 in [1] == true
'a' < 'b'
'a' < 'B'
'a' < 'aa'
'é' > 'z'
[1, 2] < [1, 3]
[1] < [1, 0]
(1, 'a') < (1, 'b')
1 < 'a'
'a' >= 1
none < 1
[1] < 1
{} < {}
1 < 2.5
true < 2
not 1 == 2
not (1 == 2)
1 and 2
0 and 2
'' or 'x'
'' or 0
'x' and ''
1 or missing.x
0 and missing.x
1 if true
1 if false
(1 if false) is defined
(1 if false).x
1 if true else 2
1 if false else 2
1 if 0 else 2 if 0 else 3
1 if none is none and true else 2
'a' if n > 5 else 'b'
n is odd
n is even
neg is odd
f is odd
s is odd
n is divisibleby 7
n is divisibleby(2)
n is not divisibleby 2
n is divisibleby 0
n is number
f is number
t is number
s is number
n is integer
t is integer
f is integer
f is float
n is float
t is boolean
n is boolean
t is true
1 is true
no is false
0 is false
s is string
n is string
l is string
l is sequence
s is sequence
d is sequence
n is sequence
(1, 2) is sequence
range(3) is sequence
d.items() is sequence
l is iterable
s is iterable
n is iterable
none is iterable
d is mapping
l is mapping
d.items is callable
range is callable
s is callable
n is eq 7
n is equalto 7
n is eq(7)
n is ne 8
n is gt 5
n is ge 7
n is lt 5
n is le 7
n is greaterthan 5
n is lessthan 5
n is sameas n
n is sameas 7.0
none is sameas none
true is sameas 1
1 is in [1, 2]
'e' is in 'Hello'
5 is not in l
s is lower
'abc' is lower
'ABC' is upper
'a1' is lower
'1' is lower
s is defined and n is defined
s is not defined
not s is defined
s is escaped
'upper' is filter
'nope' is filter
'odd' is test
s is nope
s|nope
x is defined is defined
s|upper
s|lower
s|title
'a-b (c) [d] x_y'|title
"it's a dog's"|title
"it's a dog's".title()
s|capitalize
'ABC dEF'|capitalize
s|length
s|count
l|length
s|first
s|last
e|first
e|last
e|first is defined
(e|first).x
l|first
l|last
l|reverse|list
s|reverse
s|reverse|list
n|reverse
l|reverse|first
l|reverse|length
l|reverse is iterable
d|reverse|list
s|trim
ws|trim
ws|trim|length
ws.strip()
ws.lstrip()
ws.rstrip()
'xxaxx'|trim('x')
'xyaxy'.strip('yx')
'xxaxx'.lstrip('x')
'xxaxx'.rstrip('x')
'abc'.strip('')
'abc'.strip(none)
'abc'.strip(1)
5|trim
s|replace('l', 'L')
s|replace('l', 'L', 1)
s|replace('', '-')
''|replace('', '-')
'üü'.replace('', '-')
'abc'.replace('', '-', 2)
s|replace('zz', 'y')
s|replace('l', '')
123|replace('2', 'x')
123|replace(2, 9)
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('l', 'L', -1)
s.replace('l', 'L', 0)
s.replace('l')
s.replace(1, 2)
s.split(', ')
s.split()
s.split('l')
s.split('l', 1)
s.split('l', maxsplit=1)
s.split(sep='o', maxsplit=1)
s.split('')
s.split(none, 1)
s.split('zz')
''.split()
''.split(',')
' a  b '.split()
' a  b '.split(' ')
' a  b  c '.split(none, 1)
' a  b  c '.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',')
'a,b,c'.rsplit(',', 0)
'abc'.rsplit('b')
' a b '.rsplit()
'aXXbXXc'.rsplit('XX', 1)
'</think>'.split('</think>')
'a</think>b'.split('</think>')[-1]
'a\nb\r\nc\rd\x0be\x0cf\x1cg\x85h\u2028i'.splitlines()
'a\n\nb\n'.splitlines()
'a\nb\n'.splitlines(true)
''.splitlines()
s.startswith('He')
s.startswith('')
s.startswith('he')
s.startswith(('x', 'H'))
s.startswith(['H'])
s.startswith('e', 1)
s.startswith('e', 1, 2)
s.startswith('', 12)
s.startswith('', 13)
s.endswith('ld')
s.endswith(('x', 'd'))
s.endswith('o', 0, 5)
s.endswith('', 5, 2)
s.find('o')
s.find('o', 5)
s.find('zz')
s.rfind('o')
s.rfind('')
s.find('')
s.find('', 20)
s.index('zz')
s.rindex('l')
s.find('l', -4)
s.count('l')
s.count('')
s.count('ll')
'aaaa'.count('aa')
s.count('l', 4)
s.partition(', ')
s.rpartition('o')
s.partition('zz')
s.rpartition('zz')
s.partition('')
s.removeprefix('Hello')
s.removesuffix('World')
s.removeprefix('x')
s.swapcase()
'a'.center(5)
'a'.center(4)
'ab'.center(5, '*')
'abc'.center(2)
'a'|center(6)
'a'.ljust(3, '.')
'a'.rjust(3)
'7'.zfill(3)
'-7'.zfill(4)
'a'.rjust(3, 'xx')
'abc'.isalpha()
'ab1'.isalpha()
''.isalpha()
'12'.isdigit()
'1.5'.isdigit()
'ab1'.isalnum()
' \n'.isspace()
''.isspace()
'AB'.isupper()
'A1'.isupper()
'ab'.islower()
'é'.isascii()
','.join(['a', 'b'])
','.join('abc')
','.join([1])
','.join([])
','.join(d)
'{} and {}'.format(1, 'b')
'{0}{1}{0}'.format('a', 'b')
'{x}-{y}'.format(x=1, y=none)
'{{}}'.format()
'{}'.format()
'{x}'.format()
'}'.format()
'%s is %d' % ('x', 5)
'%s' % 5
'%s' % none
'%r' % 'a'
'%5s|%-5s|%05d' % ('a', 'b', 42)
'%.2f' % 3.14159
'%5.1f|' % 3.14159
'%+d % d' % (5, 5)
'%x %X %o %#x' % (255, 255, 8, 255)
'%e' % 12345.678
'%g' % 0.0001
'%g' % 1000000.0
'%c' % 65
'%%' % ()
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%d' % 'a'
'%d' % 3.7
'%(a)s' % {'a': 1}
'%(z)s' % {'a': 1}
'%.3s' % 'abcdef'
'%*d' % (5, 42)
'abc' % ()
'abc' % 1
'%s'|format('x')
'%s %s'|format('x', 1)
'%(a)s'|format(a=5)
'%q' % 1
l|join
l|join(', ')
l|join(', ')|upper
people|join(',', attribute='name')
people|join(',', 'age')
s|join('.')
n|join
mixed|join('|')
l|sort
l|sort(reverse=true)
words|sort
words|sort(case_sensitive=true)
words|sort(reverse=true)
['a', 'A', 'b', 'B']|sort
['B', 'b', 'A', 'a']|sort(reverse=true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='age', reverse=true)|map(attribute='name')|join(',')
mixed|sort
s|sort
n|sort
d|dictsort
d|dictsort(by='value')
{'b': 1, 'A': 2, 'c': 0}|dictsort
{'b': 1, 'A': 2, 'c': 0}|dictsort(true)
{'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value')
{'b': 1, 'A': 2, 'c': 0}|dictsort(reverse=true)
{'b': 1}|dictsort(by='x')
l|dictsort
[1, 2, 1, 'a', 'A']|unique|list
['a', 'A']|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|list
[[1], [1]]|unique|list
l|min
l|max
e|min
e|max
words|min
words|max
words|max(case_sensitive=true)
people|max(attribute='age')
people|min(attribute='age')
mixed|max
l|sum
people|sum(attribute='age')
[1, 2.5]|sum
['a']|sum
e|sum
l|sum(start=10)
[[1], [2]]|sum(start=[])
people|map(attribute='name')|list
people|map(attribute='job.t')|list
people|map(attribute='job.t', default='none')|list
people|map(attribute='job', default={})|list
people|map(attribute='zz')|list
people|map(attribute='zz', default='-')|list
people|map(attribute='name')|map('lower')|join
l|map('string')|list
l|map('float')|list
words|map('upper')|list
words|map('replace', 'a', 'x')|list
words|map('default', 'x')|list
l|map('nope')|list
l|map|list
[[1, 2], [3]]|map('first')|list
[[1, 2], [3]]|map('join', '-')|list
deep|map('upper')|list
people|map(attribute='name', x=1)|list
l|select('odd')|list
l|select('gt', 1)|list
l|select('>', 1)|list
l|select('in', [1, 2])|list
l|select('==', 1)|list
l|reject('odd')|list
mixed|select|list
mixed|reject|list
words|reject('equalto', 'a')|list
words|reject('==', 'a')|join(', ')
people|selectattr('job')|map(attribute='name')|list
people|selectattr('age', 'gt', 26)|map(attribute='name')|list
people|selectattr('age', 'equalto', 25)|list|length
people|selectattr('name', 'eq', 'Eve')|first
people|selectattr('name', 'eq', 'x')|first
people|selectattr('name', 'eq', 'x')|list|length
people|rejectattr('age', 'eq', 30)|map(attribute='name')|list
people|rejectattr('job')|map(attribute='name')|list
people|selectattr('job.t', 'eq', 'dev')|list|length
people|selectattr|list
people|selectattr('age', 'nope')|list
people|selectattr('job', 'defined')|list|length
l|select('odd')|length
(l|select('odd'))[0]
l|select('odd') is iterable
l|select('odd') is sequence
'yes' if e|select else 'no'
'yes' if l|select('gt', 99) else 'no'
people|groupby('age')|list|length
people|groupby('age')|map('first')|list
people|groupby('age')|map(attribute='grouper')|list
people|groupby('zz', default='q')|map('first')|list
l|batch(2)|list
l|batch(2, 'x')|list
e|batch(2)|list
l|list
s|list
d|list
n|list
range(3)
range(3)|list
range(1, 3)|list
range(5, 0, -2)|list
range(0)|list
range(3)[1]
range(3)[-1]
range(10)[2:8:3]|list
range(10)[2:8:3]
range(3)|length
range(100001)
range(100000)|length
range(1, 2, 0)
range('a')
range()
range(2.0)
range(3) == [0, 1, 2]
range(3) == range(3)
2 in range(3)
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1), ['b', 2]])
dict(l)
dict()
namespace(a=1).a
namespace(a=1).b
namespace({'a': 5}).a
namespace(a=1)['a']
namespace(a=1)
cycler('a', 'b').next()
cycler()
'42'|int
'42.9'|int
' 42 '|int
'x'|int
'x'|int(5)
'x'|int(default=5)
'0x1f'|int(base=16)
'1f'|int(base=16)
'101'|int(base=2)
'0b101'|int(0, 2)
'0x1f'|int(base=0)
'1_000'|int
'-5'|int
'+5'|int
''|int
none|int
42.9|int
-42.9|int
true|int
l|int
'1e3'|int
'inf'|int
'nan'|int
'42.5'|float
'x'|float
'x'|float(1.5)
42|float
true|float
'1e3'|float
'inf'|float
'-inf'|float
'nan'|float
'0x10'|float
'1_0.5'|float
none|float
'.5'|float
'5.'|float
neg|abs
-2.5|abs
2.5|abs
s|abs
true|abs
42.55|round
42.55|round(1)
2.5|round
3.5|round
-2.5|round
0.125|round(2)
2.675|round(2)
1.005|round(2)
42.55|round(1, 'floor')
42.51|round(1, 'ceil')
42.4|round(0, 'ceil')
42|round
42|round(1)
1234|round(-2)
1250|round(-2)
1350|round(-2)
1234.5|round(-2)
42|round(0, 'floor')
42.5|round(method='nope')
s|round
1e300|round(2)
0.5|round|int
n|string
f|string
l|string
none|string|length
true|string
'<b>&"\''|escape
'<b>'|e
'<b>'|safe
('<b>'|safe) + '<'
'<' + ('<b>'|safe)
('<b>'|escape)|escape
('<'|e) ~ '<'
('<'|safe)|upper
['<'|safe]
('<'|e)|forceescape
'<'|safe is escaped
s|tojson
u|tojson
q|tojson
u|tojson(ensure_ascii=true)
u|tojson(true)
d|tojson
l|tojson
(1, 2)|tojson
n|tojson
f|tojson
1.0|tojson
1e20|tojson
1e-7|tojson
none|tojson
true|tojson
'inf'|float|tojson
'nan'|float|tojson
'<script>&\''|tojson
d|tojson(indent=2)
d|tojson(indent=0)
e|tojson(indent=2)
{}|tojson(indent=2)
[[], {}]|tojson(indent=2)
d|tojson(indent='--')
d|tojson(indent=none)
d|tojson(sort_keys=true)
d|tojson(separators=(',', ':'))
d|tojson(separators=[',', ':'], indent=1)
d|tojson(separators=('x',))
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1, 2): 3}|tojson
d.items()|tojson
d.keys()|tojson
range(2)|tojson
people|map(attribute='name')|tojson
range|tojson
namespace(a=1)|tojson
'\x7f\u0080'|tojson
'\x7f\u0080'|tojson(ensure_ascii=true)
'a\nb\n\nc'|indent
'a\nb\n\nc'|indent(2)
'a\nb'|indent(2, true)
'a\nb'|indent(2, first=true)
'a\n\nb\n'|indent(2, blank=true)
'a\nb\n'|indent
'a\nb'|indent('> ')
''|indent
''|indent(2, true)
'\n'|indent(2, true)
'\n\n'|indent(2, false, true)
'a'|indent(0)
5|indent
'one two  three-four'|wordcount
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(11, false, '...', 0)
'foo bar'|truncate(1)
'foobarbazqux'|truncate(5)
people[0]|attr('name')
s|attr('upper')
d|attr('b')
d|items|list
l|items|list
d|items|first
people[0].name
people[0]['name']
people[-1].name
people[9].name
people[9]
people.0.name
deep.k[0].v[1].w
deep['k'][0]['v'][1]['w']
deep.k.0.v.1.w
(l|sort)[0]
(l|sort).0
[l, s][0][1]
{'a': {'b': 5}}.a.b
{'a': 1}['a']
{'a': 1, 'a': 2}
{1: 'x'}[1.0]
{true: 'x'}[1]
{[1]: 2}
-1|abs
(-1)|abs
-n|abs
n|string|length + 1
1 + n|float
'a' ~ 'b'|upper
('a' ~ 'b')|upper
not s|length
n if n else 0|default(1)
s.upper().lower().title()
s[0:5].upper()
s.split(', ')[1][0]
'%s' % s[0]|upper
raise_exception('boom')
raise_exception('x' * 3 ~ 1)
raise_exception()
raise_exception(5)
strftime_now('%d %b %Y')
strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %p %I')
strftime_now('%-d %y %a %%')
strftime_now('Grüße %Y')
strftime_now('')
strftime_now()
strftime_now(5)
'\n\t\\\'\"\x41\u00e9\U0001F999\101'
'\q'
'a\
b'
"x'y"
'🦙'
''
'a' if 'a' else
1 +
(1
[1, 2
{'a'}
{'a': }
1 2
s.
s|
s[
.5
5.
5.upper
a b
s..x
s|upper()
s|upper(1)
s|replace
s is
is defined
1 = 2
=
'unclosed
@
$x
s?
{**d}
[*l]
range(*[1, 3])|list
dict(**{'a': 1})
dict(a=1, a=2)
range(stop=3)
range(1, *[3])|list
lambda x: x
x for x in l
l[0, 1]
l[0,]
d[1, 2]
{(1, 2): 3}[1, 2]
s if
01
1__0
loop
loop.index
caller
caller()
varargs
not
and
none.x is defined
(none).x
True.x
1.5.x
'x'.y
[1, 2,]
(1, 2,)
{'a': 1,}
range(3,)|list
[ ]
( )
{ }
1if true else 2
1 if(true)else 2
l|map('upper')|first|length
l | length
s . upper ( )
s [ 0 ]
-1 ** 2
2 - -2
2--2
2+-+2
1 - 1 - 1
8 / 4 / 2
8 // 3 * 3 + 8 % 3
'a' in 'abc' and 'b' not in 'acd'
not 'a' in 'b'
1 not in [2] == true
"a" == 'a'
1 < 2 and 2 < 3 or missing.x
(1, 2) == (1, 2)
(1, 2) in [(1, 2)]
[1, 2, 3][n - 6]
[1, 2, 3][:n]
{'k' ~ n: n}
('a', 'b')|join
"%s" % ["a"]
"%s" % {"a": 1}
joiner(', ')()
'%s' % missing
'x' % missing
'x' % l
'x' % d.items()
'x' % 5
d|truncate(3)
(1, 2).copy()
missing|reverse > []
'%s' % l|map('upper')
[missing, missing]|sort
1000000 * 1000000
9223372036854775807
2 ** 62
"abc"|list|tojson
"a b c".split(" ")|map("upper")|join("-")
[1,2,3]|map("string")|join(",")
[{'a': 1}, {'a': 2}]|sum('a')
'abc'|first|upper
'ABC'|lower|first
mixed|map('string')|list
mixed|map('tojson')|list
mixed
q
[q]
u
[u]
1e22
1e21|string
123456789.123456789
0.1
1e100
5e-324
1.7976931348623157e308
100000000000000000000.0
0.00001234
1234567890123456.7
12345678901234567.0
"""

TEMPLATES = [
    # white space
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}  \nc\n\n",
    "a {%- if true -%} \n b \n {%- endif -%} c",
    "a {%+ if true +%} \n b \n {%+ endif +%} c",
    "  {%+ if true %}x{% endif %}",
    "  {% if true %}x{% endif %}",
    "\t {% if true %}x{% endif %}\n",
    "x  {% if true %}y{% endif %}",
    "x {# c #} y\n  {# d #}\nz {#- e -#} w",
    "  {#- c #}\n x",
    "{# a #}\n{# b #}\n\n",
    "{#+ c +#}\nx",
    "  {#+ c #}\nx",
    "{{ 1 }}\n{{ 2 }}\n",
    "  {{ 1 }}  \n  {{- 2 -}}  \n 3",
    "{{-1}}",
    "{{- 1 -}}",
    "{{+1}}",
    "a\n\n",
    "a\n",
    "\n",
    "\n\n",
    "",
    "a\r\nb\rc\r\n",
    "{% if true %}\r\nx\r\n{% endif %}\r\ny",
    "{% for x in l %}\n{{ x }}\n{% endfor %}\n",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}end",
    "{% for x in l -%}\n  {{ x }}\n{%- endfor %}\nend",
    "a\n    {%- set x = 1 %}\n    {%- set y = 2 %}\nb{{ x }}{{ y }}",
    "{% set x = 1 %}\n\n{{ x }}",
    "\u00a0{% if true %}x{% endif %}",
    "x\u00a0\n{%- if true %}y{% endif %}",
    "a\n{% raw %}\n {{ x }} {% if %}\n{% endraw %}\nb",
    "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "  {% raw %}x{% endraw %}\n",
    "{% raw %}{# x #}{% endraw %}",
    "{% raw %}x",
    "{%raw%}{{{%endraw%}",
    "{ {{ '{' }} }",
    "{{ '}}' }}",
    "{{ '%}' }}{% if '%}' %}x{% endif %}",
    "{{ {'a': {'b': 1}}.a.b }}",
    "{{ {'a': {'b': 1}}}}",
    "{%- if true -%}\n\n{{ 'x' }}\n\n{%- endif -%}",
    "{% if true %}{% endif %}\n\nx",
    "{{ 'a\nb' }}",
    "{{ 'a\r\nb' }}",
    "{{ 1\n+\n2 }}",
    "{# unclosed",
    "{{ unclosed",
    "{% if true",
    "{# {# nested #} #}",
    "{# a #}{# b #}\nc\n  {# d #}  \ne",
    "}} %} #}",
    "{ { 1 } }",
    "{{ }}",
    "{% %}",
    "{%  if true  %}x{%  endif  %}",
    "{%if true%}x{%endif%}",
    "{{1}}{{2}}",
    "   \n   {%- if true %}x{% endif %}",
    "{% if true %}   \n x{% endif %}",
    "  {% if true -%}  \n x{% endif %}",
    "a  \n  {%- if true %}  x{% endif %}",
    "{{ 'x' -}}\n\n{{- 'y' }}",
    # if
    "{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}",
    "{% if n > 50 %}a{% elif n > 3 %}b{% else %}c{% endif %}",
    "{% if n > 50 %}a{% elif n > 30 %}b{% else %}c{% endif %}",
    "{% if n > 50 %}a{% elif n > 30 %}b{% endif %}",
    "{% if e %}a{% else %}b{% endif %}",
    "{% if missing %}a{% else %}b{% endif %}",
    "{% if missing.x %}a{% endif %}",
    "{% if n %}{% if no %}a{% else %}b{% endif %}{% endif %}",
    "{% if n %}",
    "{% endif %}",
    "{% if %}{% endif %}",
    "{% if n %}{% else %}{% else %}{% endif %}",
    "{% if n %}{% endfor %}",
    "{% if (n, s) %}t{% endif %}",
    "{% if n, s %}t{% endif %}",
    "{% if n if t else no %}x{% endif %}",
    "{% if n %}a{% elif missing.x %}b{% endif %}",
    "{% if not n %}a{% else %}{% set z = 1 %}{% endif %}{{ z }}",
    # for
    "{% for x in l %}{{ x }}{% endfor %}",
    "{% for x in e %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for x in l %}{{ loop.nextitem.y }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }},{% endfor %}",
    "{% for x in l %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in l %}{{ loop.nope }}{% endfor %}",
    "{% for x in l %}{{ loop.nope.x }}{% endfor %}",
    "{% for x in l %}{{ loop['index'] }}{% endfor %}",
    "{% for x in l %}{{ loop|length }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}:{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l if x is odd and x > 1 %}{{ x }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for (k, v) in d.items() %}{{ k }};{% endfor %}",
    "{% for k, (a, b) in [(1, (2, 3))] %}{{ k }}{{ a }}{{ b }}{% endfor %}",
    "{% for k, v in l %}{{ k }}{% endfor %}",
    "{% for k, v in [[1]] %}{{ k }}{% endfor %}",
    "{% for k, v in [[1, 2, 3]] %}{{ k }}{% endfor %}",
    "{% for k, v in ['ab'] %}{{ k }}{{ v }}{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for c in u %}{{ c }};{% endfor %}",
    "{% for x in n %}{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in missing.y %}{{ x }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}",
    "{% for x in l|sort|reverse %}{{ x }}{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}",
    "{% for x in (1, 2) %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}none{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}none{% endfor %}",
    "{% for x in l %}{% if loop.last %}{% break %}{% endif %}{% else %}none{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% break %}",
    "{% continue %}",
    "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in l %}{% for y in 'ab' %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l %}{% endfor %}{{ x }}",
    "{% set x = 'o' %}{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in l %}{{ loop }}{% break %}{% endfor %}",
    "{% for loop in l %}{% endfor %}",
    "{% for x in l %}{% set loop = 1 %}{% endfor %}",
    "{% for x in l recursive %}{% endfor %}x" if False else "{% for in l %}{% endfor %}",
    "{% for x of l %}{% endfor %}",
    "{% for x in %}{% endfor %}",
    "{% for 1 in l %}{% endfor %}",
    "{% for x.y in l %}{% endfor %}",
    "{% for x in l %}",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}",
    "{% set g = l|select('odd') %}{{ g|first }}{{ g|list }}{{ g|list }}",
    "{% set g = l|select('odd') %}{% for x in g %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
    "{% for x in l %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for x in l %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for x in [l, l] %}{% for y in x %}{{ y }}{% else %}-{% endfor %};{% endfor %}",
    "{% for p in people if p.age == 30 %}{{ p.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for p in people[1:] %}{{ p.name }}{% endfor %}",
    "{% for p in people[::-1] %}{{ p.name }}{% endfor %}",
    "{% for a, b in people|groupby('age') %}{{ a }}:{{ b|map(attribute='name')|join(',') }};{% endfor %}",
    "{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }};{% endfor %}",
    # set and scopes
    "{% set x = 1 %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set x, y = [1] %}{{ x }}",
    "{% set (x, y) = (1, 2) %}{{ x }}{{ y }}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x = y = 1 %}",
    "{% set 1 = 2 %}",
    "{% set true = 2 %}",
    "{% set x %}",
    "{% set x.y = 1 %}",
    "{% set d.b = 1 %}",
    "{% set d['b'] = 1 %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in l %}{% set x = i %}{% endfor %}{{ x is defined }}",
    "{% for i in l %}{% if loop.first %}{% set x = i %}{% endif %}{{ x }}{% endfor %}",
    "{% for i in l %}{% if loop.first %}{% set n = i %}{% endif %}{{ n }}{% endfor %}",
    "{% for i in l %}{{ n }}{% set n = i %}{{ n }},{% endfor %}{{ n }}",
    "{% set n = n + 1 %}{{ n }}",
    "{% set n = n + 1 %}{% for i in l %}{% set n = n + 1 %}{% endfor %}{{ n }}",
    "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}",
    "{% set ns = namespace() %}{{ ns.c.d }}",
    "{% set ns = namespace(x=[]) %}{% for i in l %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(found=false) %}{% for i in l %}{% if i == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x|length }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | upper | replace('A', 'z') %}abc{% endset %}{{ x }}",
    "{% set x %}{% set y = 5 %}{{ y }}{% endset %}{{ x }}{{ y }}",
    "{% set ns = namespace() %}{% set ns.x %}abc{% endset %}{{ ns.x }}",
    "{% for i in l %}{% set x %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endset %}{{ x }}{% endfor %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% with a, b = (1, 2) %}{{ a }}{% endwith %}",
    "{% set messages = l[1:] %}{{ messages }}",
    "{% if true %}{% set s = s|upper %}{% endif %}{{ s }}",
    "{% set l = l + [9] %}{{ l }}",
    # macros
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m() }}|{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m() %}{{ n }}{% endmacro %}{{ m() }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set n = 99 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}",
    "{% for i in l %}{{ m(i) }}{% endfor %}{% macro m(x) %}{{ x }}{% endmacro %}",
    "{% macro m(x) %}[{{ x }}]{% endmacro %}{% for i in l %}{{ m(i) }}{% endfor %}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro m() %}  x  {% endmacro %}[{{ m()|trim }}][{{ m().strip() }}]",
    "{% macro m() -%} x {%- endmacro %}[{{ m() }}]",
    "{% macro m() %}{% endmacro %}{{ m() == '' }}{{ m()|length }}",
    "{% macro m() %}a{% endmacro %}{{ m() ~ 'b' }}{{ m() + 'c' }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{{ n }}{% endcall %}",
    "{% macro m() %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) m() %}<{{ x }}>{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m(a) %}{{ a }}{{ caller('q') }}{% endmacro %}{% call(x, y='d') m('p') %}{{ x }}{{ y }}{% endcall %}",
    "{% call n %}x{% endcall %}",
    "{% call n() %}x{% endcall %}",
    "{% macro m(a, a2) %}{{ a2 }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 1, 'a2': 3}) }}",
    "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% macro m() %}{{ m.name }}{% endmacro %}{{ m() }}{{ m.name }}",
    "{% if true %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}",
    "{% for i in l %}{% macro m() %}{{ i }}{{ loop.index }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m(x) %}{{ x|tojson }}{% endmacro %}{{ m({'a': [1]}) }}",
    "{% macro m(x) %}{% endmacro %}{{ m is callable }}{{ m is defined }}",
    "{% macro %}{% endmacro %}",
    "{% macro m %}{% endmacro %}",
    "{% macro m(1) %}{% endmacro %}",
    "{% macro m(a, b=none) -%}\n{{ a }}{% if b is not none %}:{{ b }}{% endif %}\n{%- endmacro %}\n{{ m('x') }}{{ m('x', 1) }}",
    # blocks of other kinds
    "{% filter upper %}abc{{ s }}{% endfilter %}",
    "{% filter upper|replace('A', 'z') %}abc{% endfilter %}",
    "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% filter nope %}{% endfilter %}",
    "{% filter upper %}{% set q = 1 %}{% endfilter %}{{ q }}",
    "{% generation %}x{{ n }}{% endgeneration %}",
    "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}",
    "a\n  {% generation %}\n  x\n  {% endgeneration %}\nb",
    "{% for i in l %}{% generation %}{{ i }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{% for i in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% print n %}{% print n, s %}{% print %}",
    "{% nope %}",
    "{% do l.append(1) %}",
    "{% endfor %}",
    "{% 5 %}",
    "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.current }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set x = c.reset() %}{{ c.current }}",
    "{{ raise_exception('a') if n > 5 }}",
    "{% if n == 8 %}{{ raise_exception('a') }}{% endif %}ok",
    "{{ 1 }}{{ raise_exception('zweite Zeile: ü') }}",
    "{% set x = raise_exception('in set') %}",
    "{% for x in l %}{{ raise_exception('in loop ' ~ x) }}{% endfor %}",
    "{% macro m() %}{{ raise_exception('in macro') }}{% endmacro %}{{ m() }}",
    "{{ 'a' if missing is defined else raise_exception('else') }}",
    "{{ s }}{# {{ s }} #}{{ s }}",
    "{{ d['x y']['z'] is none }}",
    "{{ people | selectattr('age', '>=', 30) | map(attribute='name') | join(' & ') }}",
    "{{ (people | selectattr('name', 'equalto', 'bob') | first).age }}",
    "{{ people|map(attribute='age')|sum }}",
    "{% set a = [1, 2, 3] %}{{ a[a|length - 1] }}{{ a[-1:] }}{{ a[:-1] | join }}",
    "{% set x = {'a': 1} %}{% set x = dict(x, b=2) %}{{ x }}",
    "{% set x = {'a': 1} %}{% for k, v in x.items() %}{{ k }}{{ v }}{% endfor %}{{ x.items()|list }}",
    "{%- for m in people %}\n    {%- if m.age == 30 %}\n        {{- m.name + '\\n' }}\n    {%- endif %}\n{%- endfor %}",
    "{{ 'x' }}\n\n{{ 'y' }}\n",
    "{{- 'x' }}\n{%- if true %}\n{{ 'y' }}\n{%- endif %}\n",
]

SNIPPETS = ["{{ " + e + " }}" for e in EXPRESSIONS.strip("\n").replace("\\\nb", "\\\0b").split("\n")]
SNIPPETS = [s.replace("\0", "\n") for s in SNIPPETS] + TEMPLATES
SNIPPETS = list(dict.fromkeys(SNIPPETS))
