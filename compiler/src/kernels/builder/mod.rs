//! A typed builder over naga's IR: what a kernel reads like in Rust is what it reads like in WGSL.
//!
//! A [`Builder`] holds one module with one compute entry point. Expressions are [`Value`]s, small `Copy` handles
//! with a Rust type (`f32`, `u32`, `[f32; 4]` for `vec4<f32>` ...) and the usual operators; memory is seen through
//! [`Array`]s and [`Pointer`]s; control flow takes closures:
//!
//! ```ignore
//! let b = Builder::new("scale", 64, Capability::Base);
//! let x = b.storage::<f32>("x", Access::Read);
//! let out = b.storage::<f32>("out", Access::ReadWrite);
//! b.range("i", b.thread(), 1000, 64, |i| out.store(i, x.load(i) * 2.0));
//! let source = b.finish()?;
//! ```
//!
//! Laws that the builder keeps: each expression is emitted exactly once, where it was written, so a load sees the
//! stores before it and none after it; a value made inside a block (loop, branch) may not be used outside it
//! (validation refuses it). Barriers and subgroup operations must be in uniform control flow: not below a branch or
//! loop whose condition depends on the thread or on a read-write buffer (see [`Pointer::uniform_load`]).

mod control;
mod finish;
mod memory;
mod ops;
mod reduce;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;

use kiln_bundle::Access;
use naga::{Block, Expression, Handle, Literal, Module, Span, Statement, TypeInner};

pub use finish::{KernelError, KernelSource, MAX_WORKGROUP_BYTES};
pub use memory::{Array, AtomicArray, Pointer};
pub use reduce::{Reduction, Totals};
pub use value::{Bool, F32, Float, IntoValue, Kind, Number, U32, UVec4, Value, Vec4};

use super::Capability;

/// One kernel under construction.
pub struct Builder {
    name: String,
    workgroup: u32,
    capability: Capability,
    state: RefCell<State>,
}

struct State {
    module: Module,
    function: naga::Function,
    /// Open blocks, innermost last.
    blocks: Vec<Block>,
    /// Expressions from here on are not covered by an `Emit` yet.
    unemitted: usize,
    literals: BTreeMap<LiteralKey, Handle<Expression>>,
    /// Expressions of globals and built-in arguments, by name.
    roots: BTreeMap<&'static str, Handle<Expression>>,
    bindings: Vec<Access>,
    workgroup_bytes: u32,
    subgroups: bool,
    half: bool,
}

/// Bytes of a kernel's name; file systems allow 255 of a file's, which is a little longer.
const LONGEST_NAME: usize = 200;
/// How many of them are left to the digest of a longer name.
const DIGEST: usize = 17;

/// Type discriminant and bits.
type LiteralKey = (u8, u32);

impl Builder {
    /// A kernel named `name` (its entry point too) with `workgroup` threads in one dimension.
    ///
    /// naga's writer renames what ends in a digit, so such a name gets `_k` at its end. A name that is too long for a file
    /// ends in a digest of the rest.
    pub fn new(name: impl Into<String>, workgroup: u32, capability: Capability) -> Self {
        let mut name = name.into();
        if name.len() > LONGEST_NAME {
            let digest = kiln_bundle::sha256_hex(name.as_bytes());
            name.truncate(LONGEST_NAME - DIGEST);
            name = format!("{name}_{}", &digest[..DIGEST - 1]);
        }
        if name.ends_with(|last: char| last.is_ascii_digit()) {
            name.push_str("_k");
        }
        Builder {
            name,
            workgroup,
            capability,
            state: RefCell::new(State {
                module: Module::default(),
                function: naga::Function::default(),
                blocks: vec![Block::new()],
                unemitted: 0,
                literals: BTreeMap::new(),
                roots: BTreeMap::new(),
                bindings: Vec::new(),
                workgroup_bytes: 0,
                subgroups: false,
                half: false,
            }),
        }
    }

    /// Threads in a workgroup.
    pub fn workgroup(&self) -> u32 {
        self.workgroup
    }

    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// `local_invocation_index`: the thread's number in its workgroup.
    pub fn thread(&self) -> U32<'_> {
        self.builtin::<u32>("thread", naga::BuiltIn::LocalInvocationIndex)
    }

    /// `workgroup_id`: the workgroup's place in the grid.
    pub fn group(&self) -> Value<'_, [u32; 3]> {
        self.builtin::<[u32; 3]>("group", naga::BuiltIn::WorkGroupId)
    }

    /// `subgroup_invocation_id`: the thread's number in its subgroup.
    pub fn lane(&self) -> U32<'_> {
        self.subgroup_builtin("lane", naga::BuiltIn::SubgroupInvocationId)
    }

    /// `subgroup_id`: the number of the thread's subgroup in its workgroup.
    pub fn subgroup(&self) -> U32<'_> {
        self.subgroup_builtin("subgroup", naga::BuiltIn::SubgroupId)
    }

    /// `num_subgroups`: subgroups in a workgroup.
    pub fn subgroup_count(&self) -> U32<'_> {
        self.subgroup_builtin("subgroup_count", naga::BuiltIn::NumSubgroups)
    }

    /// A named module constant: `const COLS: u32 = 576u;`. The same name gives the same constant.
    pub fn constant<'b, T: Kind>(&'b self, name: &'static str, value: impl IntoValue<'b, T>) -> Value<'b, T> {
        if let Some(&handle) = self.state.borrow().roots.get(name) {
            return self.value(handle);
        }
        let value = value.value(self);
        let mut state = self.state.borrow_mut();
        let expression = state.function.expressions[value.handle].clone();
        let ty = state.intern::<T>();
        let init = state.module.global_expressions.append(expression, Span::UNDEFINED);
        let constant = naga::Constant {
            name: Some(name.into()),
            ty,
            init,
        };
        let constant = state.module.constants.append(constant, Span::UNDEFINED);
        let handle = state.append(Expression::Constant(constant));
        state.roots.insert(name, handle);
        drop(state);
        self.value(handle)
    }

    fn subgroup_builtin(&self, name: &'static str, builtin: naga::BuiltIn) -> U32<'_> {
        self.state.borrow_mut().subgroups = true;
        self.builtin::<u32>(name, builtin)
    }

    fn builtin<T: Kind>(&self, name: &'static str, builtin: naga::BuiltIn) -> Value<'_, T> {
        let mut state = self.state.borrow_mut();
        let known = state.roots.get(name).copied();
        let handle = known.unwrap_or_else(|| {
            let ty = state.intern::<T>();
            let index = state.function.arguments.len() as u32;
            state.function.arguments.push(naga::FunctionArgument {
                name: Some(name.into()),
                ty,
                binding: Some(naga::Binding::BuiltIn(builtin)),
            });
            let handle = state.append(Expression::FunctionArgument(index));
            state.roots.insert(name, handle);
            handle
        });
        drop(state);
        self.value(handle)
    }

    fn value<T>(&self, handle: Handle<Expression>) -> Value<'_, T> {
        Value::new(self, handle)
    }

    fn expression<T>(&self, expression: Expression) -> Value<'_, T> {
        let handle = self.state.borrow_mut().append(expression);
        self.value(handle)
    }

    fn statement(&self, statement: Statement) {
        self.state.borrow_mut().push(statement);
    }

    /// Runs `body` in a new innermost block and gives that block.
    fn block(&self, body: impl FnOnce()) -> Block {
        {
            let mut state = self.state.borrow_mut();
            state.flush();
            state.blocks.push(Block::new());
        }
        body();
        let mut state = self.state.borrow_mut();
        state.flush();
        state.blocks.pop().expect("opened above")
    }
}

impl State {
    fn intern<T: Kind>(&mut self) -> Handle<naga::Type> {
        self.half |= T::SCALAR == naga::Scalar::F16;
        self.intern_inner(T::inner())
    }

    fn intern_inner(&mut self, inner: TypeInner) -> Handle<naga::Type> {
        self.module
            .types
            .insert(naga::Type { name: None, inner }, Span::UNDEFINED)
    }

    /// Adds an expression; `Emit` follows with the next statement, but for kinds that must not have one.
    fn append(&mut self, expression: Expression) -> Handle<Expression> {
        let unemittable = expression.needs_pre_emit()
            || matches!(
                expression,
                Expression::AtomicResult { .. }
                    | Expression::WorkGroupUniformLoadResult { .. }
                    | Expression::SubgroupOperationResult { .. }
            );
        if unemittable {
            self.flush();
        }
        let handle = self.function.expressions.append(expression, Span::UNDEFINED);
        if unemittable {
            self.unemitted = self.function.expressions.len();
        }
        handle
    }

    fn literal(&mut self, literal: Literal) -> Handle<Expression> {
        let key = match literal {
            Literal::F32(value) => (0, value.to_bits()),
            Literal::U32(value) => (1, value),
            Literal::I32(value) => (2, value as u32),
            Literal::Bool(value) => (3, u32::from(value)),
            Literal::F16(value) => (4, u32::from(value.to_bits())),
            other => unreachable!("{other:?} is no literal of a `Kind`"),
        };
        if let Some(&known) = self.literals.get(&key) {
            return known;
        }
        let handle = self.append(Expression::Literal(literal));
        self.literals.insert(key, handle);
        handle
    }

    fn flush(&mut self) {
        let expressions = &self.function.expressions;
        if expressions.len() > self.unemitted {
            let range = expressions.range_from(self.unemitted);
            self.unemitted = expressions.len();
            self.current().push(Statement::Emit(range), Span::UNDEFINED);
        }
    }

    fn push(&mut self, statement: Statement) {
        self.flush();
        self.current().push(statement, Span::UNDEFINED);
    }

    fn current(&mut self) -> &mut Block {
        self.blocks.last_mut().expect("the function body is never closed")
    }
}
