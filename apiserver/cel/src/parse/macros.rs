//! Calls, and the macros among them as what they are.

use super::cursor::Parser;
use super::words::{FORMATS, QUALIFIED};
use super::{Parsed, SyntaxError, call};
use crate::ast::{Expr, Fold, FoldKind, Kind, Select};

// === impl Parser ===

impl Parser {
    pub(super) fn function(&mut self, at: usize, name: String, args: Vec<Expr>) -> Parsed {
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

    pub(super) fn method(
        &mut self,
        at: usize,
        target: Expr,
        name: String,
        mut args: Vec<Expr>,
    ) -> Parsed {
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
