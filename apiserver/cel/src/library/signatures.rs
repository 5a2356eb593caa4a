//! What each function takes and gives. A row is an overload: name, whether it is a method (its
//! first argument is then the receiver), arguments, result.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::Type;

/// An overload.
#[derive(Debug)]
pub struct Overload {
    /// Whether the first argument is the receiver.
    pub method: bool,
    /// The types of the arguments.
    pub args: Vec<Type>,
    /// The type of the result.
    pub result: Type,
}

/// All overloads of a function.
pub fn of(name: &str) -> &'static [Overload] {
    static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(table);
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

/// Rows: `name(args) -> result`, `receiver.name(args) -> result`.
const ROWS: &str = "
!_(bool) -> bool
-_(int) -> int
-_(double) -> double
_&&_(bool, bool) -> bool
_||_(bool, bool) -> bool
_?_:_(bool, A, A) -> A
_==_(A, A) -> bool
_!=_(A, A) -> bool
_+_(int, int) -> int
_+_(uint, uint) -> uint
_+_(double, double) -> double
_+_(string, string) -> string
_+_(bytes, bytes) -> bytes
_+_(list(A), list(A)) -> list(A)
_+_(timestamp, duration) -> timestamp
_+_(duration, timestamp) -> timestamp
_+_(duration, duration) -> duration
_-_(int, int) -> int
_-_(uint, uint) -> uint
_-_(double, double) -> double
_-_(timestamp, timestamp) -> duration
_-_(timestamp, duration) -> timestamp
_-_(duration, duration) -> duration
_*_(int, int) -> int
_*_(uint, uint) -> uint
_*_(double, double) -> double
_/_(int, int) -> int
_/_(uint, uint) -> uint
_/_(double, double) -> double
_%_(int, int) -> int
_%_(uint, uint) -> uint
@in(A, list(A)) -> bool
@in(A, map(A, B)) -> bool
_[_](list(A), int) -> A
_[_](map(A, B), A) -> B
_[_](optional(list(A)), int) -> optional(A)
_[_](optional(map(A, B)), A) -> optional(B)
_[?_](list(A), int) -> optional(A)
_[?_](map(A, B), A) -> optional(B)
_[?_](optional(list(A)), int) -> optional(A)
_[?_](optional(map(A, B)), A) -> optional(B)
size(string) -> int
size(bytes) -> int
size(list(A)) -> int
size(map(A, B)) -> int
string.size() -> int
bytes.size() -> int
list(A).size() -> int
map(A, B).size() -> int
bool(bool) -> bool
bool(string) -> bool
int(int) -> int
int(uint) -> int
int(double) -> int
int(string) -> int
int(timestamp) -> int
uint(uint) -> uint
uint(int) -> uint
uint(double) -> uint
uint(string) -> uint
double(double) -> double
double(int) -> double
double(uint) -> double
double(string) -> double
string(string) -> string
string(bool) -> string
string(int) -> string
string(uint) -> string
string(double) -> string
string(bytes) -> string
string(timestamp) -> string
string(duration) -> string
string(ip) -> string
string(cidr) -> string
bytes(bytes) -> bytes
bytes(string) -> bytes
timestamp(timestamp) -> timestamp
timestamp(string) -> timestamp
timestamp(int) -> timestamp
duration(duration) -> duration
duration(string) -> duration
dyn(A) -> dyn
type(A) -> type
timestamp.getFullYear() -> int
timestamp.getFullYear(string) -> int
timestamp.getMonth() -> int
timestamp.getMonth(string) -> int
timestamp.getDate() -> int
timestamp.getDate(string) -> int
timestamp.getDayOfMonth() -> int
timestamp.getDayOfMonth(string) -> int
timestamp.getDayOfWeek() -> int
timestamp.getDayOfWeek(string) -> int
timestamp.getDayOfYear() -> int
timestamp.getDayOfYear(string) -> int
timestamp.getHours() -> int
timestamp.getHours(string) -> int
timestamp.getMinutes() -> int
timestamp.getMinutes(string) -> int
timestamp.getSeconds() -> int
timestamp.getSeconds(string) -> int
timestamp.getMilliseconds() -> int
timestamp.getMilliseconds(string) -> int
duration.getHours() -> int
duration.getMinutes() -> int
duration.getSeconds() -> int
duration.getMilliseconds() -> int
string.contains(string) -> bool
string.startsWith(string) -> bool
string.endsWith(string) -> bool
string.matches(string) -> bool
matches(string, string) -> bool
string.find(string) -> string
string.findAll(string) -> list(string)
string.findAll(string, int) -> list(string)
string.charAt(int) -> string
string.indexOf(string) -> int
string.indexOf(string, int) -> int
string.lastIndexOf(string) -> int
string.lastIndexOf(string, int) -> int
string.lowerAscii() -> string
string.upperAscii() -> string
string.replace(string, string) -> string
string.replace(string, string, int) -> string
string.split(string) -> list(string)
string.split(string, int) -> list(string)
string.substring(int) -> string
string.substring(int, int) -> string
string.trim() -> string
string.reverse() -> string
string.format(list(dyn)) -> string
strings.quote(string) -> string
list(string).join() -> string
list(string).join(string) -> string
list(A).isSorted() -> bool
list(A).sum() -> A
list(A).min() -> A
list(A).max() -> A
list(A).indexOf(A) -> int
list(A).lastIndexOf(A) -> int
list(A).first() -> optional(A)
list(A).last() -> optional(A)
list(A).distinct() -> list(A)
list(A).reverse() -> list(A)
list(A).sort() -> list(A)
list(A).slice(int, int) -> list(A)
list(dyn).flatten() -> list(dyn)
sets.contains(list(A), list(A)) -> bool
sets.equivalent(list(A), list(A)) -> bool
sets.intersects(list(A), list(A)) -> bool
url(string) -> url
isURL(string) -> bool
url.getScheme() -> string
url.getHost() -> string
url.getHostname() -> string
url.getPort() -> string
url.getEscapedPath() -> string
url.getQuery() -> map(string, list(string))
ip(string) -> ip
isIP(string) -> bool
ip.isCanonical(string) -> bool
ip.family() -> int
ip.isUnspecified() -> bool
ip.isLoopback() -> bool
ip.isLinkLocalMulticast() -> bool
ip.isLinkLocalUnicast() -> bool
ip.isGlobalUnicast() -> bool
cidr(string) -> cidr
isCIDR(string) -> bool
cidr.containsIP(ip) -> bool
cidr.containsIP(string) -> bool
cidr.containsCIDR(cidr) -> bool
cidr.containsCIDR(string) -> bool
cidr.ip() -> ip
cidr.masked() -> cidr
cidr.prefixLength() -> int
quantity(string) -> quantity
isQuantity(string) -> bool
quantity.sign() -> int
quantity.isInteger() -> bool
quantity.asInteger() -> int
quantity.asApproximateFloat() -> double
quantity.add(quantity) -> quantity
quantity.add(int) -> quantity
quantity.sub(quantity) -> quantity
quantity.sub(int) -> quantity
quantity.isGreaterThan(quantity) -> bool
quantity.isLessThan(quantity) -> bool
quantity.compareTo(quantity) -> int
semver(string) -> semver
semver(string, bool) -> semver
isSemver(string) -> bool
isSemver(string, bool) -> bool
semver.isGreaterThan(semver) -> bool
semver.isLessThan(semver) -> bool
semver.compareTo(semver) -> int
semver.major() -> int
semver.minor() -> int
semver.patch() -> int
format.named(string) -> optional(format)
format.validate(string) -> optional(list(string))
optional.of(A) -> optional(A)
optional.ofNonZeroValue(A) -> optional(A)
optional.none() -> optional(A)
optional(A).hasValue() -> bool
optional(A).value() -> A
optional(A).or(optional(A)) -> optional(A)
optional(A).orValue(A) -> A
base64.encode(bytes) -> string
base64.decode(string) -> bytes
math.abs(int) -> int
math.abs(uint) -> uint
math.abs(double) -> double
math.sign(int) -> int
math.sign(uint) -> uint
math.sign(double) -> double
math.ceil(double) -> double
math.floor(double) -> double
math.round(double) -> double
math.trunc(double) -> double
math.sqrt(double) -> double
math.isNaN(double) -> bool
math.isInf(double) -> bool
math.isFinite(double) -> bool
math.bitAnd(int, int) -> int
math.bitOr(int, int) -> int
math.bitXor(int, int) -> int
math.bitNot(int) -> int
math.bitShiftLeft(int, int) -> int
math.bitShiftRight(int, int) -> int
jsonpatch.escapeKey(string) -> string
authorizer.path(string) -> pathcheck
authorizer.group(string) -> groupcheck
authorizer.serviceAccount(string, string) -> authorizer
groupcheck.resource(string) -> resourcecheck
resourcecheck.subresource(string) -> resourcecheck
resourcecheck.namespace(string) -> resourcecheck
resourcecheck.name(string) -> resourcecheck
resourcecheck.fieldSelector(string) -> resourcecheck
resourcecheck.labelSelector(string) -> resourcecheck
resourcecheck.check(string) -> decision
pathcheck.check(string) -> decision
decision.allowed() -> bool
decision.reason() -> string
decision.errored() -> bool
decision.error() -> string
";

/// Functions over anything that has an order.
const ORDERED: &[&str] = &[
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
    "duration",
];
/// Numbers compare across their types.
const NUMBERS: &[&str] = &["int", "uint", "double"];

fn table() -> HashMap<&'static str, Vec<Overload>> {
    let mut out: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for row in ROWS.lines().filter(|row| !row.is_empty()) {
        let (name, overload) = read(row);
        out.entry(name).or_default().push(overload);
    }
    for name in ["_<_", "_<=_", "_>_", "_>=_"] {
        let mut add = |a: &str, b: &str| {
            let args = vec![of_name(a), of_name(b)];
            out.entry(name).or_default().push(Overload {
                method: false,
                args,
                result: Type::Bool,
            });
        };
        ORDERED.iter().for_each(|ty| add(ty, ty));
        for a in NUMBERS {
            NUMBERS.iter().filter(|b| *b != a).for_each(|b| add(a, b));
        }
    }
    for name in ["math.greatest", "math.least"] {
        for ty in NUMBERS {
            for count in 1..=4 {
                let args = vec![of_name(ty); count];
                out.entry(name).or_default().push(Overload {
                    method: false,
                    args,
                    result: of_name(ty),
                });
            }
            let args = vec![Type::list(of_name(ty))];
            out.entry(name).or_default().push(Overload {
                method: false,
                args,
                result: of_name(ty),
            });
        }
    }
    for name in crate::parse::FORMATS {
        let name: &'static str = Box::leak(format!("format.{name}").into_boxed_str());
        let overload = Overload {
            method: false,
            args: Vec::new(),
            result: of_name("format"),
        };
        out.entry(name).or_default().push(overload);
    }
    out
}

/// Reads a row. The name stands before the bracket that opens the arguments; a receiver before a
/// dot, unless the name as a whole is that of a function.
fn read(row: &'static str) -> (&'static str, Overload) {
    let (left, result) = row.rsplit_once(" -> ").unwrap_or((row, "dyn"));
    let left = left.strip_suffix(')').unwrap_or(left);
    let open = opening(left);
    let (head, args) = (&left[..open], &left[open + 1..]);
    let mut types = Vec::new();
    let spaces = [
        "sets.",
        "strings.",
        "optional.of",
        "optional.none",
        "base64.",
        "math.",
        "jsonpatch.",
        "format.named",
        "ip.isCanonical",
    ];
    let (name, method) = match head.rsplit_once('.') {
        Some((receiver, name)) if !spaces.iter().any(|space| head.starts_with(space)) => {
            types.push(of_name(receiver));
            (name, true)
        }
        _ => (head, false),
    };
    types.extend(split(args).map(of_name));
    let overload = Overload {
        method,
        args: types,
        result: of_name(result),
    };
    (name, overload)
}

/// The bracket that opens the last group.
fn opening(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return at,
            '(' => depth -= 1,
            _ => {}
        }
    }
    0
}

/// Splits at commas that stand in no bracket.
fn split(args: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0;
    let parts = args.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

fn of_name(name: &str) -> Type {
    if let Some(inner) = inner(name, "list") {
        return Type::list(of_name(inner));
    }
    if let Some(inner) = inner(name, "optional") {
        return Type::optional(of_name(inner));
    }
    if let Some(inner) = inner(name, "map") {
        let (key, value) = inner.split_once(',').unwrap_or((inner, "dyn"));
        return Type::map(of_name(key.trim()), of_name(value.trim()));
    }
    match name {
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::STRING,
        "bytes" => Type::BYTES,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "url" => Type::Opaque("kubernetes.URL"),
        "quantity" => Type::Opaque("kubernetes.Quantity"),
        "semver" => Type::Opaque("kubernetes.Semver"),
        "format" => Type::Opaque("kubernetes.NamedFormat"),
        "authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
        "pathcheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
        "groupcheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
        "resourcecheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::Opaque("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}

fn inner<'a>(name: &'a str, outer: &str) -> Option<&'a str> {
    name.strip_prefix(outer)?
        .strip_prefix('(')?
        .strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let shown = |name: &str| -> Vec<String> {
            let show = |o: &Overload| {
                let args: Vec<String> = o.args.iter().map(ToString::to_string).collect();
                format!(
                    "{}{} -> {}",
                    if o.method { "." } else { "" },
                    args.join(","),
                    o.result
                )
            };
            of(name).iter().map(show).collect()
        };
        assert_eq!(
            shown("@in"),
            ["<A>,list(<A>) -> bool", "<A>,map(<A>, <B>) -> bool"]
        );
        assert_eq!(shown("sets.contains"), ["list(<A>),list(<A>) -> bool"]);
        assert_eq!(shown("masked"), [".net.CIDR -> net.CIDR"]);
        assert_eq!(shown("ip"), ["string -> net.IP", ".net.CIDR -> net.IP"]);
        assert_eq!(
            shown("getQuery"),
            [".kubernetes.URL -> map(string, list(string))"]
        );
        assert_eq!(shown("orValue"), [".optional_type(<A>),<A> -> <A>"]);
        assert_eq!(
            shown("validate"),
            [".kubernetes.NamedFormat,string -> optional_type(list(string))"]
        );
    }
}
