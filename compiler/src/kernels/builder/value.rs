use std::marker::PhantomData;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Rem, Shl, Shr, Sub};

use half::f16;
use naga::{BinaryOperator as Op, Expression, Handle, Literal, Scalar, TypeInner, UnaryOperator, VectorSize};

use super::Builder;

/// A Rust type that stands for a WGSL one: `f32`, `u32`, `i32`, `bool`, `f16`, and `[T; 2..=4]` for vectors.
pub trait Kind: Copy + 'static {
    const SCALAR: Scalar;
    const SIZE: Option<VectorSize>;
    /// Distance of elements in an array, in bytes.
    const STRIDE: u32;
    /// Type of one component; the type itself for scalars.
    type Component: Kind;

    fn inner() -> TypeInner {
        match Self::SIZE {
            None => TypeInner::Scalar(Self::SCALAR),
            Some(size) => TypeInner::Vector {
                size,
                scalar: Self::SCALAR,
            },
        }
    }
}

/// Everything but booleans.
pub trait Number: Kind {}
/// `f32`, `f16` and vectors of them.
pub trait Float: Number {}
/// `u32`, `i32` and vectors of them.
pub trait Integer: Number {}

macro_rules! kinds {
    ($($scalar:ty: $naga:expr, $bytes:literal, [$($class:ident)*];)*) => {$(
        kinds!(one $scalar, $scalar, $naga, None, $bytes, [$($class)*]);
        kinds!(one [$scalar; 2], $scalar, $naga, Some(VectorSize::Bi), 2 * $bytes, [$($class)*]);
        kinds!(one [$scalar; 3], $scalar, $naga, Some(VectorSize::Tri), 4 * $bytes, [$($class)*]);
        kinds!(one [$scalar; 4], $scalar, $naga, Some(VectorSize::Quad), 4 * $bytes, [$($class)*]);
    )*};
    (one $kind:ty, $component:ty, $naga:expr, $size:expr, $stride:expr, [$($class:ident)*]) => {
        impl Kind for $kind {
            const SCALAR: Scalar = $naga;
            const SIZE: Option<VectorSize> = $size;
            const STRIDE: u32 = $stride;
            type Component = $component;
        }
        $(impl $class for $kind {})*
    };
}

kinds! {
    f32: Scalar::F32, 4, [Number Float];
    f16: Scalar::F16, 2, [Number Float];
    u32: Scalar::U32, 4, [Number Integer];
    i32: Scalar::I32, 4, [Number Integer];
    bool: Scalar::BOOL, 4, [];
}

/// An expression of type `T` in a kernel.
pub struct Value<'b, T> {
    pub(super) builder: &'b Builder,
    pub(super) handle: Handle<Expression>,
    kind: PhantomData<T>,
}

pub type F32<'b> = Value<'b, f32>;
pub type U32<'b> = Value<'b, u32>;
pub type Bool<'b> = Value<'b, bool>;
pub type Vec4<'b> = Value<'b, [f32; 4]>;
pub type UVec4<'b> = Value<'b, [u32; 4]>;

// Derived impls would ask `T: Copy` of a type that is never stored.
impl<T> Clone for Value<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Value<'_, T> {}

/// What can be given where a value of type `T` is wanted: a [`Value`], or a Rust literal.
pub trait IntoValue<'b, T> {
    fn value(self, builder: &'b Builder) -> Value<'b, T>;
}

impl<'b, T> IntoValue<'b, T> for Value<'b, T> {
    fn value(self, _: &'b Builder) -> Value<'b, T> {
        self
    }
}

macro_rules! literals {
    ($($scalar:ty => $literal:path),*) => {$(
        impl<'b> IntoValue<'b, $scalar> for $scalar {
            fn value(self, builder: &'b Builder) -> Value<'b, $scalar> {
                let handle = builder.state.borrow_mut().literal($literal(self));
                builder.value(handle)
            }
        }
    )*};
}
literals!(u32 => Literal::U32, i32 => Literal::I32, bool => Literal::Bool);

impl<'b> IntoValue<'b, f16> for f16 {
    fn value(self, builder: &'b Builder) -> Value<'b, f16> {
        let mut state = builder.state.borrow_mut();
        state.half = true;
        let handle = state.literal(Literal::F16(self));
        drop(state);
        builder.value(handle)
    }
}

impl<'b> IntoValue<'b, f32> for f32 {
    /// Numbers whose decimal is unwieldy or refused (`f32::MAX`, infinities) are written as their bits.
    fn value(self, builder: &'b Builder) -> Value<'b, f32> {
        let plain = self == 0.0 || (1e-12..1e12).contains(&self.abs());
        if plain {
            let handle = builder.state.borrow_mut().literal(Literal::F32(self));
            return builder.value(handle);
        }
        self.to_bits().value(builder).bitcast::<f32>()
    }
}

impl<'b, T: Kind> Value<'b, T> {
    /// Names the expression in WGSL: `let name = ..;`. The first name stays. Has no effect on literals and built-in
    /// arguments.
    pub fn named(self, name: &str) -> Self {
        let mut state = self.builder.state.borrow_mut();
        state
            .function
            .named_expressions
            .entry(self.handle)
            .or_insert_with(|| name.to_string());
        self
    }

    pub(super) fn binary<U>(self, op: Op, right: Value<'b, impl Kind>) -> Value<'b, U> {
        if let Some(folded) = self.builder.fold(op, self.handle, right.handle) {
            return self.builder.value(folded);
        }
        let (left, right) = (self.handle, right.handle);
        self.builder.expression(Expression::Binary { op, left, right })
    }

    fn unary(self, op: UnaryOperator) -> Self {
        self.builder.expression(Expression::Unary { op, expr: self.handle })
    }
}

impl<'b, T> Value<'b, T> {
    pub(super) fn new(builder: &'b Builder, handle: Handle<Expression>) -> Self {
        Value {
            builder,
            handle,
            kind: PhantomData,
        }
    }

    /// The builder that this value belongs to.
    pub fn builder(self) -> &'b Builder {
        self.builder
    }
}

impl Builder {
    /// Arithmetic that need not be written: `x + 0`, `x * 1`, `x / 1`, and u32 literals among themselves.
    fn fold(&self, op: Op, left: Handle<Expression>, right: Handle<Expression>) -> Option<Handle<Expression>> {
        let literal = |handle| match self.state.borrow().function.expressions[handle] {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        };
        let is = |found: Option<Literal>, number: u8| match found {
            Some(Literal::U32(value)) => value == u32::from(number),
            Some(Literal::F32(value)) => value == f32::from(number),
            _ => false,
        };
        let (a, b) = (literal(left), literal(right));
        match op {
            Op::Add if is(a, 0) => return Some(right),
            Op::Multiply if is(a, 1) && b.is_some() => return Some(right),
            Op::Add | Op::Subtract if is(b, 0) => return Some(left),
            // A scalar one times a vector is the vector; one on the left keeps the type of the right.
            Op::Multiply | Op::Divide if is(b, 1) => return Some(left),
            _ => {}
        }
        let (Some(Literal::U32(a)), Some(Literal::U32(b))) = (a, b) else {
            return None;
        };
        let folded = match op {
            Op::Add => a.checked_add(b),
            Op::Subtract => a.checked_sub(b),
            Op::Multiply => a.checked_mul(b),
            Op::Divide => a.checked_div(b),
            Op::Modulo => a.checked_rem(b),
            _ => None,
        }?;
        Some(self.state.borrow_mut().literal(Literal::U32(folded)))
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident $class:ident [$($literal:ty)*];)*) => {$(
        impl<'b, T: $class> $trait for Value<'b, T> {
            type Output = Value<'b, T>;
            fn $method(self, right: Value<'b, T>) -> Value<'b, T> {
                self.binary(Op::$op, right)
            }
        }
        $(impl<'b> $trait<$literal> for Value<'b, $literal> {
            type Output = Value<'b, $literal>;
            fn $method(self, right: $literal) -> Value<'b, $literal> {
                self.binary(Op::$op, right.value(self.builder))
            }
        })*
    )*};
}

operators! {
    Add add Add Number [u32 i32 f32];
    Sub sub Subtract Number [u32 i32 f32];
    Mul mul Multiply Number [u32 i32 f32];
    Div div Divide Number [u32 i32 f32];
    Rem rem Modulo Integer [u32 i32];
    BitAnd bitand And Integer [u32 i32];
    BitOr bitor InclusiveOr Integer [u32 i32];
    BitXor bitxor ExclusiveOr Integer [u32 i32];
}

macro_rules! vector_times_scalar {
    ($($scalar:ty),*; $sizes:tt) => {$( vector_times_scalar!(each $scalar; $sizes); )*};
    (each $scalar:ty; [$($size:literal)*]) => {$(
        impl<'b> Mul<Value<'b, $scalar>> for Value<'b, [$scalar; $size]> {
            type Output = Self;
            fn mul(self, right: Value<'b, $scalar>) -> Self {
                self.binary(Op::Multiply, right)
            }
        }
        impl<'b> Mul<$scalar> for Value<'b, [$scalar; $size]> {
            type Output = Self;
            fn mul(self, right: $scalar) -> Self {
                self.binary(Op::Multiply, right.value(self.builder))
            }
        }
    )*};
}
vector_times_scalar!(f32, f16, u32, i32; [2 3 4]);

impl<'b> Shl<u32> for U32<'b> {
    type Output = U32<'b>;
    fn shl(self, bits: u32) -> U32<'b> {
        self << bits.value(self.builder)
    }
}
impl<'b> Shr<u32> for U32<'b> {
    type Output = U32<'b>;
    fn shr(self, bits: u32) -> U32<'b> {
        self >> bits.value(self.builder)
    }
}
impl<'b> Shl for U32<'b> {
    type Output = U32<'b>;
    fn shl(self, bits: U32<'b>) -> U32<'b> {
        self.binary(Op::ShiftLeft, bits)
    }
}
impl<'b> Shr for U32<'b> {
    type Output = U32<'b>;
    fn shr(self, bits: U32<'b>) -> U32<'b> {
        self.binary(Op::ShiftRight, bits)
    }
}
impl<T: Number> Neg for Value<'_, T> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(UnaryOperator::Negate)
    }
}
impl Not for Bool<'_> {
    type Output = Self;
    fn not(self) -> Self {
        self.unary(UnaryOperator::LogicalNot)
    }
}
impl<'b> BitAnd for Bool<'b> {
    type Output = Self;
    fn bitand(self, right: Self) -> Self {
        self.binary(Op::LogicalAnd, right)
    }
}
impl<'b> BitOr for Bool<'b> {
    type Output = Self;
    fn bitor(self, right: Self) -> Self {
        self.binary(Op::LogicalOr, right)
    }
}
