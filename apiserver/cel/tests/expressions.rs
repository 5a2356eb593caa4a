//! Expressions and what they are worth.

use peapod_cel::eval::Bindings;
use peapod_cel::{Budget, Env, EvalError, Program, Spent, Type, Value};
use proptest::prelude::*;

fn env() -> Env {
    let item = Type::object(
        "item",
        [
            ("name".to_owned(), Type::STRING),
            ("n".to_owned(), Type::Int),
        ],
    );
    let object = Type::object(
        "self",
        [
            ("a".to_owned(), Type::Int),
            ("s".to_owned(), Type::String(100)),
            ("list".to_owned(), Type::list(Type::Int).sized(10)),
            ("items".to_owned(), Type::list(item)),
            ("map".to_owned(), Type::map(Type::STRING, Type::STRING)),
            ("any".to_owned(), Type::Dyn),
            ("missing".to_owned(), Type::STRING),
        ],
    );
    Env::default().with("self", object)
}

fn value() -> Value {
    Value::of_json(&serde_json::json!({
        "a": 5, "s": "hello", "list": [1, 2, 3], "map": {"k": "v"}, "any": {"x": [1]},
        "items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}],
    }))
}

fn run(source: &str) -> Result<String, String> {
    let program =
        Program::compile(source, &env()).map_err(|fault| format!("compile: {}", fault.message))?;
    let mut budget = Budget::new(1_000_000, 1_000_000);
    let bindings = Bindings::default().with("self", value());
    let found = program.eval(&bindings, &mut budget);
    found
        .map(|value| value.shown())
        .map_err(|fault| fault.to_string())
}

#[test]
fn expressions_have_values() {
    for (source, expected) in [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-7 % 3", "-1"),
        ("self.a >= 5 && self.s == 'hello'", "true"),
        ("self.a > 10 ? 'big' : 'small'", "small"),
        ("has(self.missing) || self.a == 5", "true"),
        ("has(self.missing) && self.missing == ''", "false"),
        ("1 / 0 == 1 || true", "true"),
        ("self.list.all(x, x > 0)", "true"),
        ("self.list.exists(x, x == 2)", "true"),
        ("self.list.exists_one(x, x > 1)", "false"),
        ("self.list.map(x, x * 2)", "[2, 4, 6]"),
        ("self.list.map(x, x > 1, x * 2)", "[4, 6]"),
        ("self.list.filter(x, x != 2)", "[1, 3]"),
        ("self.list.all(i, x, i < x)", "true"),
        ("self.items.map(i, i.name)", "[a, b]"),
        (
            "self.items.all(i, self.items.exists_one(j, j.name == i.name))",
            "true",
        ),
        ("self.map.all(k, self.map[k] == 'v')", "true"),
        ("'k' in self.map && 2 in self.list", "true"),
        ("self.any.x[0] == 1", "true"),
        ("self.?missing.orValue('none')", "none"),
        ("self.?s.hasValue()", "true"),
        ("self.map[?'z'].orValue('w')", "w"),
        ("optional.of(3).optMap(x, x + 1).value()", "4"),
        ("[1, ?optional.none(), 3]", "[1, 3]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{a: 2}"),
        ("cel.bind(x, self.a * 2, x + x)", "20"),
        ("size(self.s) + self.list.size()", "8"),
        (
            "self.s.startsWith('he') && self.s.matches('^h.*o$')",
            "true",
        ),
        ("'a,b,c'.split(',').join('-')", "a-b-c"),
        (
            "'%s is %d and %.2f'.format(['x', 3, 1.5])",
            "x is 3 and 1.50",
        ),
        ("'abc'.substring(1, 2) + 'ABC'.lowerAscii()", "babc"),
        ("'tacocat'.indexOf('co') + 'tacocat'.lastIndexOf('a')", "7"),
        ("'ab ab'.replace('ab', 'x', 1)", "x ab"),
        ("'a1b2'.findAll('[0-9]')", "[1, 2]"),
        ("[3, 1, 2].isSorted() || [3, 1, 2].max() == 3", "true"),
        ("[1, 2].sum() + [4, 5].indexOf(5)", "4"),
        (
            "sets.contains([1, 2, 3], [2]) && !sets.intersects([1], [2])",
            "true",
        ),
        ("quantity('1Gi').isGreaterThan(quantity('500Mi'))", "true"),
        (
            "quantity('50k').add(quantity('20k')).sub(quantity('100k')).sub(-50000).asInteger()",
            "20000",
        ),
        (
            "isQuantity('x') || quantity('200M').compareTo(quantity('0.2G')) == 0",
            "true",
        ),
        (
            "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
            "true",
        ),
        ("cidr('192.168.0.5/24').masked().prefixLength()", "24"),
        ("ip.isCanonical('2001:DB8::1') || isIP('fd00::1')", "true"),
        ("url('https://a.b:8080/p?q=1').getHost()", "a.b:8080"),
        ("url('https://a.b/p?q=1').getQuery()['q'][0]", "1"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true)",
            "true",
        ),
        ("!format.dns1123Label().validate('a.b').hasValue()", "false"),
        ("timestamp('2026-01-02T03:04:05Z').getFullYear()", "2026"),
        (
            "timestamp('2026-01-02T03:04:05Z') + duration('1h') > timestamp('2026-01-02T04:00:00Z')",
            "true",
        ),
        ("duration('1h30m').getMinutes()", "90"),
        ("type(1) == int && string(1.5) == '1.5'", "true"),
        (
            "1 == 1.0 && 2u > 1u",
            "compile: found no matching overload for '_==_' applied to '(int, double)'",
        ),
        ("dyn(1) == 1.0", "true"),
        ("b'abc'.size() == 3 && r'\\d' == '\\\\d'", "true"),
        ("{'a': {'b': 1}}['a']['b']", "1"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("math.greatest(1, 5, 3)", "5"),
    ] {
        let found = run(source).unwrap_or_else(|fault| fault);
        assert_eq!(found, expected, "{source}");
    }
}

#[test]
fn wrong_expressions_are_told() {
    for (source, expected) in [
        ("self.nosuch", "compile: undefined field 'nosuch'"),
        (
            "other",
            "compile: undeclared reference to 'other' (in container '')",
        ),
        (
            "self.a + 'x'",
            "compile: found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "self.s.nosuch()",
            "compile: undeclared reference to 'nosuch' (in container '')",
        ),
        (
            "self.a.all(x, x)",
            "compile: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.missing == ''", "no such key: missing"),
        ("self.list[7] == 1", "index out of bounds: 7"),
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("1 / 0 == 1", "division by zero"),
        ("[1].all(x, 1 / 0 == x)", "division by zero"),
    ] {
        assert_eq!(run(source), Err(expected.to_owned()), "{source}");
    }
    let fault = Program::compile("1 +\n  x", &env()).unwrap_err();
    assert_eq!((fault.line, fault.column), (2, 3));
}

#[test]
fn costs_are_bounded() {
    let worst = |source: &str| Program::compile(source, &env()).unwrap().worst_cost();
    assert!(worst("self.a == 1") < 10);
    assert!(worst("self.list.all(x, self.list.all(y, x == y))") < 2_000);
    // Lists without a bound.
    assert!(worst("self.items.all(i, self.items.all(j, i.n == j.n))") > 1_000_000_000);
    let big = Value::map([("list", Value::list((0..2000).map(Value::Int).collect()))]);
    let program =
        Program::compile("self.list.all(x, self.list.all(y, x + y >= 0))", &env()).unwrap();
    let mut budget = Budget::new(10_000_000, 100_000);
    let bindings = Bindings::default().with("self", big);
    assert_eq!(
        program.eval(&bindings, &mut budget).unwrap_err(),
        EvalError::Spent(Spent::Expression)
    );
    let mut budget = Budget::new(100, 100_000);
    assert_eq!(
        program.eval(&bindings, &mut budget).unwrap_err(),
        EvalError::Spent(Spent::All)
    );
}

proptest! {
    #[test]
    fn what_compiles_is_evaluated_without_panics(source in "(self\\.(a|s|list|any)|[0-9]|'x')( ?[+*/%<=&|-]{1,2} ?(self\\.(a|s|list)|[0-9]|'x')){0,4}") {
        let _ = run(&source);
    }
}
