//! Tokens to a tree: operators by precedence, macros as what they are.

use crate::ast::{Call, Expr, Fold, FoldKind, Kind, Select};
use crate::lex::{At, Token, tokens};
use crate::value::Value;

/// How deep an expression may nest: deeper ones could exhaust the stack.
const DEPTH_MAX: usize = 60;
/// Most bytes of an expression.
const LENGTH_MAX: usize = 64 * 1024;

/// An expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where, in bytes.
    pub at: usize,
    /// Why.
    pub message: String,
}

/// Functions that are called by a name with a dot: what stands before it is no variable.
const QUALIFIED: &[&str] = &[
    "base64.decode",
    "base64.encode",
    "cel.bind",
    "format.named",
    "ip.isCanonical",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "strings.quote",
    "jsonpatch.escapeKey",
];
/// Named formats, which are functions without arguments.
pub(crate) const FORMATS: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Reads an expression.
///
/// # Errors
/// [`SyntaxError`] says where it cannot be read.
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > LENGTH_MAX {
        return Err(SyntaxError {
            at: 0,
            message: format!("expression is longer than {LENGTH_MAX} bytes"),
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.choice()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.unexpected(&other.clone())),
    }
}

struct Parser {
    tokens: Vec<At>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, SyntaxError>;

/// The binary operators by precedence, the loosest first.
const LEVELS: &[&[(&str, &str)]] = &[
    &[("||", "_||_")],
    &[("&&", "_&&_")],
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].token.clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn takes(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Mark(m) if *m == mark);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, mark: &str) -> Result<(), SyntaxError> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(self.unexpected(&self.peek().clone())),
        }
    }

    fn unexpected(&self, token: &Token) -> SyntaxError {
        let shown = match token {
            Token::Ident(name) => name.clone(),
            Token::Mark(mark) => (*mark).to_owned(),
            Token::End => "<EOF>".to_owned(),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Text(text) => format!("{text:?}"),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        self.bad(format!("Syntax error: mismatched input '{shown}'"))
    }

    fn bad(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at: self.at(),
            message: message.into(),
        }
    }

    fn deeper<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")));
        }
        let outcome = work(self);
        self.depth -= 1;
        outcome
    }

    /// `a ? b : c`
    fn choice(&mut self) -> Parsed {
        self.deeper(|this| {
            let at = this.at();
            let condition = this.binary(0)?;
            if !this.takes("?") {
                return Ok(condition);
            }
            let then = this.binary(0)?;
            this.expect(":")?;
            let otherwise = this.choice()?;
            Ok(call(at, None, "_?_:_", vec![condition, then, otherwise]))
        })
    }

    fn operator(&self, level: usize) -> Option<&'static str> {
        let found = match self.peek() {
            Token::Mark(mark) => *mark,
            Token::Ident(word) if word == "in" => "in",
            _ => return None,
        };
        let all = LEVELS[level].iter();
        all.clone()
            .find(|(mark, _)| *mark == found)
            .map(|(_, name)| *name)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        if level == LEVELS.len() {
            return self.unary();
        }
        let at = self.at();
        let first = self.binary(level + 1)?;
        let mut terms = vec![first];
        let mut names = Vec::new();
        while let Some(name) = self.operator(level) {
            self.next += 1;
            names.push(name);
            terms.push(self.binary(level + 1)?);
        }
        if names.len() > DEPTH_MAX * 16 {
            return Err(self.bad("expression has too many operators"));
        }
        if level < 2 {
            return Ok(balanced(at, LEVELS[level][0].1, terms));
        }
        if names.len() > DEPTH_MAX {
            return Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")));
        }
        let mut terms = terms.into_iter();
        let mut left = terms
            .next()
            .ok_or_else(|| self.bad("an operand is missing"))?;
        for (name, right) in names.into_iter().zip(terms) {
            left = call(at, None, name, vec![left, right]);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.takes("!") {
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, None, "!_", vec![operand]));
        }
        if self.takes("-") {
            let negated = match self.peek() {
                Token::Int(number) => Some(Value::Int(number.wrapping_neg())),
                Token::Double(number) => Some(Value::Double(-number)),
                _ => None,
            };
            if let Some(value) = negated {
                self.next += 1;
                return self.members(Expr {
                    at,
                    kind: Kind::Literal(value),
                });
            }
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, None, "-_", vec![operand]));
        }
        if let Token::Int(i64::MIN) = self.peek() {
            return Err(self.bad("Syntax error: invalid int literal"));
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    /// What follows a primary: fields, calls, indexes, literals of objects.
    fn members(&mut self, mut expr: Expr) -> Parsed {
        for _ in 0..=DEPTH_MAX {
            let at = self.at();
            let mark = match self.peek() {
                Token::Mark(mark) => *mark,
                _ => return Ok(expr),
            };
            expr = match mark {
                "." | ".?" => {
                    self.next += 1;
                    let Token::Ident(field) = self.advance() else {
                        self.next -= 1;
                        return Err(self.unexpected(&self.peek().clone()));
                    };
                    if mark == "." && self.takes("(") {
                        let args = self.list(")")?;
                        self.method(at, expr, field, args)?
                    } else {
                        let operand = Box::new(expr);
                        let optional = mark == ".?";
                        Expr {
                            at,
                            kind: Kind::Select(Select {
                                operand,
                                field,
                                test: false,
                                optional,
                            }),
                        }
                    }
                }
                "[" | "[?" => {
                    self.next += 1;
                    let index = self.choice()?;
                    self.expect("]")?;
                    let name = if mark == "[" { "_[_]" } else { "_[?_]" };
                    call(at, None, name, vec![expr, index])
                }
                "{" => match qualified(&expr) {
                    Some(name) => {
                        self.next += 1;
                        let fields = self.fields()?;
                        Expr {
                            at,
                            kind: Kind::Struct(name, fields),
                        }
                    }
                    None => return Ok(expr),
                },
                _ => return Ok(expr),
            };
        }
        Err(self.bad(format!("expression nests deeper than {DEPTH_MAX}")))
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = |value| {
            Ok(Expr {
                at,
                kind: Kind::Literal(value),
            })
        };
        match self.advance() {
            Token::Int(number) => literal(Value::Int(number)),
            Token::Uint(number) => literal(Value::Uint(number)),
            Token::Double(number) => literal(Value::Double(number)),
            Token::Text(text) => literal(Value::text(text)),
            Token::Bytes(bytes) => literal(Value::Bytes(bytes.into())),
            Token::Ident(name) => match name.as_str() {
                "true" => literal(Value::Bool(true)),
                "false" => literal(Value::Bool(false)),
                "null" => literal(Value::Null),
                _ if RESERVED.contains(&name.as_str()) => {
                    self.next -= 1;
                    Err(self.bad(format!("reserved identifier: {name}")))
                }
                _ if self.takes("(") => {
                    let args = self.list(")")?;
                    self.function(at, name, args)
                }
                _ => Ok(Expr {
                    at,
                    kind: Kind::Ident(name),
                }),
            },
            Token::Mark("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Mark("[") => self.list_literal(at, false),
            Token::Mark("[?") => self.list_literal(at, true),
            Token::Mark("{") => self.map_literal(at),
            // A leading dot names a variable of the root, which all are.
            Token::Mark(".") => self.primary(),
            other => {
                if other != Token::End {
                    self.next -= 1;
                }
                Err(self.unexpected(&other))
            }
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, SyntaxError> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.choice()?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn list_literal(&mut self, at: usize, first_optional: bool) -> Parsed {
        let mut items = Vec::new();
        let mut optional = first_optional;
        while !self.takes("]") {
            optional |= self.takes("?");
            items.push((self.choice()?, std::mem::take(&mut optional)));
            if !self.takes(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr {
            at,
            kind: Kind::List(items),
        })
    }

    fn map_literal(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = self.choice()?;
            self.expect(":")?;
            entries.push((key, self.choice()?, optional));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr {
            at,
            kind: Kind::Map(entries),
        })
    }

    fn fields(&mut self) -> Result<Vec<(String, Expr, bool)>, SyntaxError> {
        let mut fields = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let name = match self.advance() {
                Token::Ident(name) => name,
                other => return Err(self.unexpected(&other)),
            };
            self.expect(":")?;
            fields.push((name, self.choice()?, optional));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }

    fn function(&mut self, at: usize, name: String, args: Vec<Expr>) -> Parsed {
        if name != "has" {
            return Ok(call(at, None, &name, args));
        }
        let mut args = args;
        match (args.pop(), args.is_empty()) {
            (
                Some(Expr {
                    kind: Kind::Select(select),
                    ..
                }),
                true,
            ) if !select.optional => Ok(Expr {
                at,
                kind: Kind::Select(Select {
                    test: true,
                    ..select
                }),
            }),
            _ => Err(self.bad("invalid argument to has() macro")),
        }
    }

    fn method(&mut self, at: usize, target: Expr, name: String, mut args: Vec<Expr>) -> Parsed {
        if let Kind::Ident(space) = &target.kind {
            let full = format!("{space}.{name}");
            if full == "cel.bind" {
                return self.bind(at, args);
            }
            let format = space == "format" && args.is_empty() && FORMATS.contains(&name.as_str());
            if QUALIFIED.contains(&full.as_str()) || format {
                return Ok(call(at, None, &full, args));
            }
        }
        let kind = match (name.as_str(), args.len()) {
            ("all", 2 | 3) => FoldKind::All,
            ("exists", 2 | 3) => FoldKind::Exists,
            ("exists_one" | "existsOne", 2 | 3) => FoldKind::ExistsOne,
            ("map", 2 | 3) => return self.map_macro(at, target, args),
            ("filter", 2) => FoldKind::Filter,
            ("transformList", 3 | 4) => return self.transform(at, FoldKind::Map, target, args),
            ("transformMap", 3 | 4) => {
                return self.transform(at, FoldKind::TransformMap, target, args);
            }
            ("optMap" | "optFlatMap", 2) => {
                let body = Box::new(args.remove(1));
                let var = self.variable(&args[0])?;
                let kind = Kind::OptMap(Box::new(target), var, body, name == "optFlatMap");
                return Ok(Expr { at, kind });
            }
            _ => return Ok(call(at, Some(target), &name, args)),
        };
        let body = args
            .pop()
            .ok_or_else(|| self.bad("a macro's body is missing"))?;
        let var = self.variable(&args[0])?;
        let var2 = args.get(1).map(|arg| self.variable(arg)).transpose()?;
        Ok(fold(
            at,
            Fold {
                kind,
                range: target,
                var,
                var2,
                filter: None,
                body,
            },
        ))
    }

    fn map_macro(&mut self, at: usize, range: Expr, mut args: Vec<Expr>) -> Parsed {
        let body = args
            .pop()
            .ok_or_else(|| self.bad("a macro's body is missing"))?;
        let filter = (args.len() > 1).then(|| args.remove(1));
        let var = self.variable(&args[0])?;
        Ok(fold(
            at,
            Fold {
                kind: FoldKind::Map,
                range,
                var,
                var2: None,
                filter,
                body,
            },
        ))
    }

    fn transform(&mut self, at: usize, kind: FoldKind, range: Expr, mut args: Vec<Expr>) -> Parsed {
        let body = args
            .pop()
            .ok_or_else(|| self.bad("a macro's body is missing"))?;
        let filter = (args.len() > 2).then(|| args.remove(2));
        let (var, var2) = (self.variable(&args[0])?, Some(self.variable(&args[1])?));
        Ok(fold(
            at,
            Fold {
                kind,
                range,
                var,
                var2,
                filter,
                body,
            },
        ))
    }

    fn bind(&mut self, at: usize, args: Vec<Expr>) -> Parsed {
        let Ok([name, value, body]) = <[Expr; 3]>::try_from(args) else {
            return Err(self.bad("cel.bind() takes a name, a value and an expression"));
        };
        let name = self.variable(&name)?;
        Ok(Expr {
            at,
            kind: Kind::Bind(name, Box::new(value), Box::new(body)),
        })
    }

    fn variable(&self, expr: &Expr) -> Result<String, SyntaxError> {
        match &expr.kind {
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(SyntaxError {
                at: expr.at,
                message: "argument must be a simple name".to_owned(),
            }),
        }
    }
}

fn fold(at: usize, fold: Fold) -> Expr {
    Expr {
        at,
        kind: Kind::Fold(Box::new(fold)),
    }
}

fn call(at: usize, target: Option<Expr>, function: &str, args: Vec<Expr>) -> Expr {
    let call = Call {
        target: target.map(Box::new),
        function: function.to_owned(),
        args,
    };
    Expr {
        at,
        kind: Kind::Call(call),
    }
}

/// A chain of one operator as a tree of low depth.
fn balanced(at: usize, name: &str, mut terms: Vec<Expr>) -> Expr {
    while terms.len() > 1 {
        let mut next = Vec::with_capacity(terms.len().div_ceil(2));
        let mut pairs = terms.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => call(at, None, name, vec![left, right]),
                None => left,
            });
        }
        terms = next;
    }
    terms.pop().unwrap_or(Expr {
        at,
        kind: Kind::Literal(Value::Null),
    })
}

/// The dotted name that an expression spells, if it does.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select(select) if !select.test && !select.optional => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_expressions_are_told() {
        for bad in [
            "",
            "1 +",
            "a b",
            "(1",
            "has(x)",
            "'abc",
            "[1, 2",
            "self.all(1, x)",
            "in",
            "9223372036854775808",
            "1 ? 2",
            "a..b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        assert!(parse(&deep).is_err());
        assert!(parse("-9223372036854775808").is_ok());
        let long: Vec<&str> = vec!["a"; 400];
        assert!(parse(&long.join(" || ")).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c.()\\[\\]{}?:'\"\\\\0-9+*&|<>=!, é-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
