use std::marker::PhantomData;

use kiln_bundle::Access;
use naga::{AddressSpace, ArraySize, AtomicFunction, Expression, Handle, Span, Statement, StorageAccess, TypeInner};

use super::value::{IntoValue, Kind, U32, Value};
use super::{Builder, State};

/// An array of `T`: a storage binding, or in workgroup or private memory.
pub struct Array<'b, T> {
    builder: &'b Builder,
    base: Handle<Expression>,
    kind: PhantomData<T>,
}

/// Where a `T` is held: a variable, or an element of an array.
pub struct Pointer<'b, T> {
    builder: &'b Builder,
    pointer: Handle<Expression>,
    kind: PhantomData<T>,
}

/// An array of `atomic<u32>`.
#[derive(Clone, Copy)]
pub struct AtomicArray<'b> {
    builder: &'b Builder,
    base: Handle<Expression>,
}

impl<T> Clone for Array<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Array<'_, T> {}
impl<T> Clone for Pointer<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Pointer<'_, T> {}

impl<'b, T: Kind> Array<'b, T> {
    /// Element `index`.
    pub fn at(self, index: impl IntoValue<'b, u32>) -> Pointer<'b, T> {
        let pointer = self.builder.access(self.base, index.value(self.builder));
        Pointer {
            builder: self.builder,
            pointer,
            kind: PhantomData,
        }
    }

    /// Value of element `index`, as it is now.
    pub fn load(self, index: impl IntoValue<'b, u32>) -> Value<'b, T> {
        self.at(index).load()
    }

    /// Sets element `index`.
    pub fn store(self, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, T>) {
        self.at(index).store(value);
    }
}

impl<'b, T: Kind> Pointer<'b, T> {
    /// The value, as it is now.
    pub fn load(self) -> Value<'b, T> {
        self.builder.expression(Expression::Load { pointer: self.pointer })
    }

    pub fn store(self, value: impl IntoValue<'b, T>) {
        let value = value.value(self.builder).handle;
        self.builder.statement(Statement::Store {
            pointer: self.pointer,
            value,
        });
    }

    /// `workgroupUniformLoad`: the value of workgroup memory, uniform for control flow. A workgroup barrier too.
    pub fn uniform_load(self) -> Value<'b, T> {
        let mut state = self.builder.state.borrow_mut();
        let ty = state.intern::<T>();
        let result = state.append(Expression::WorkGroupUniformLoadResult { ty });
        state.push(Statement::WorkGroupUniformLoad {
            pointer: self.pointer,
            result,
        });
        drop(state);
        self.builder.value(result)
    }
}

impl<'b, T: super::Number> Pointer<'b, T> {
    /// Adds `value` to what is held there.
    pub fn add(self, value: impl IntoValue<'b, T>) {
        let value = value.value(self.builder);
        self.store(self.load() + value);
    }
}

impl<'b> AtomicArray<'b> {
    /// `atomicLoad` of element `index`.
    pub fn load(self, index: impl IntoValue<'b, u32>) -> U32<'b> {
        let pointer = self.builder.access(self.base, index.value(self.builder));
        self.builder.expression(Expression::Load { pointer })
    }

    /// `atomicStore` to element `index`.
    pub fn store(self, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, u32>) {
        let pointer = self.builder.access(self.base, index.value(self.builder));
        let value = value.value(self.builder).handle;
        self.builder.statement(Statement::Store { pointer, value });
    }

    /// `atomicAdd`; gives the value before.
    pub fn add(self, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, u32>) -> U32<'b> {
        self.update(AtomicFunction::Add, index, value)
    }

    /// `atomicOr`; gives the value before.
    pub fn or(self, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, u32>) -> U32<'b> {
        self.update(AtomicFunction::InclusiveOr, index, value)
    }

    /// `atomicMax`; gives the value before.
    pub fn max(self, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, u32>) -> U32<'b> {
        self.update(AtomicFunction::Max, index, value)
    }

    fn update(self, fun: AtomicFunction, index: impl IntoValue<'b, u32>, value: impl IntoValue<'b, u32>) -> U32<'b> {
        let pointer = self.builder.access(self.base, index.value(self.builder));
        let value = value.value(self.builder).handle;
        let mut state = self.builder.state.borrow_mut();
        let ty = state.intern::<u32>();
        let result = state.append(Expression::AtomicResult { ty, comparison: false });
        state.push(Statement::Atomic {
            pointer,
            fun,
            value,
            result: Some(result),
        });
        drop(state);
        self.builder.value(result)
    }
}

impl Builder {
    /// The next binding of group 0: `array<T>`.
    pub fn storage<T: Kind>(&self, name: &str, access: Access) -> Array<'_, T> {
        let element = self.state.borrow_mut().intern::<T>();
        let base = self.bind(name, element, T::STRIDE, access);
        Array {
            builder: self,
            base,
            kind: PhantomData,
        }
    }

    /// The next binding of group 0: `array<atomic<u32>>`, read-write.
    pub fn storage_atomic(&self, name: &str) -> AtomicArray<'_> {
        let element = self
            .state
            .borrow_mut()
            .intern_inner(TypeInner::Atomic(naga::Scalar::U32));
        let base = self.bind(name, element, 4, Access::ReadWrite);
        AtomicArray { builder: self, base }
    }

    /// `length` elements of workgroup memory, zero at the start.
    pub fn shared<T: Kind>(&self, name: &str, length: u32) -> Array<'_, T> {
        let element = self.state.borrow_mut().intern::<T>();
        let base = self.shared_array(name, element, T::STRIDE, length);
        Array {
            builder: self,
            base,
            kind: PhantomData,
        }
    }

    /// `length` atomics in workgroup memory, zero at the start.
    pub fn shared_atomic(&self, name: &str, length: u32) -> AtomicArray<'_> {
        let element = self
            .state
            .borrow_mut()
            .intern_inner(TypeInner::Atomic(naga::Scalar::U32));
        let base = self.shared_array(name, element, 4, length);
        AtomicArray { builder: self, base }
    }

    /// One `T` of workgroup memory, zero at the start.
    pub fn shared_value<T: Kind>(&self, name: &str) -> Pointer<'_, T> {
        let mut state = self.state.borrow_mut();
        let ty = state.intern::<T>();
        let pointer = state.global(name, AddressSpace::WorkGroup, None, ty, T::STRIDE);
        drop(state);
        Pointer {
            builder: self,
            pointer,
            kind: PhantomData,
        }
    }

    /// A variable of this thread, set to `init` here.
    pub fn variable<'b, T: Kind>(&'b self, name: &str, init: impl IntoValue<'b, T>) -> Pointer<'b, T> {
        let init = init.value(self);
        let mut state = self.state.borrow_mut();
        let constant = matches!(
            state.function.expressions[init.handle],
            Expression::Literal(_) | Expression::ZeroValue(_) | Expression::Constant(_)
        );
        // In a loop the initializer would run once only.
        let at_start = constant && state.blocks.len() == 1;
        let ty = state.intern::<T>();
        let pointer = state.local(name, ty, at_start.then_some(init.handle));
        drop(state);
        let variable = Pointer {
            builder: self,
            pointer,
            kind: PhantomData,
        };
        if !at_start {
            variable.store(init);
        }
        variable
    }

    /// `length` elements of memory of this thread, zero at the start of the kernel.
    pub fn private<T: Kind>(&self, name: &str, length: u32) -> Array<'_, T> {
        let mut state = self.state.borrow_mut();
        let element = state.intern::<T>();
        let ty = state.array(element, T::STRIDE, Some(length));
        let base = state.local(name, ty, None);
        drop(state);
        Array {
            builder: self,
            base,
            kind: PhantomData,
        }
    }

    fn access(&self, base: Handle<Expression>, index: U32<'_>) -> Handle<Expression> {
        let mut state = self.state.borrow_mut();
        let expression = match state.function.expressions[index.handle] {
            Expression::Literal(naga::Literal::U32(index)) => Expression::AccessIndex { base, index },
            _ => Expression::Access {
                base,
                index: index.handle,
            },
        };
        state.append(expression)
    }

    fn bind(&self, name: &str, element: Handle<naga::Type>, stride: u32, access: Access) -> Handle<Expression> {
        let mut state = self.state.borrow_mut();
        let binding = naga::ResourceBinding {
            group: 0,
            binding: state.bindings.len() as u32,
        };
        state.bindings.push(access);
        let access = match access {
            Access::Read => StorageAccess::LOAD,
            Access::ReadWrite => StorageAccess::LOAD | StorageAccess::STORE,
        };
        let ty = state.array(element, stride, None);
        state.global(name, AddressSpace::Storage { access }, Some(binding), ty, 0)
    }

    fn shared_array(&self, name: &str, element: Handle<naga::Type>, stride: u32, length: u32) -> Handle<Expression> {
        let mut state = self.state.borrow_mut();
        let ty = state.array(element, stride, Some(length));
        state.global(name, AddressSpace::WorkGroup, None, ty, stride * length)
    }
}

impl State {
    fn array(&mut self, base: Handle<naga::Type>, stride: u32, length: Option<u32>) -> Handle<naga::Type> {
        let size = match length.and_then(std::num::NonZeroU32::new) {
            Some(length) => ArraySize::Constant(length),
            None => ArraySize::Dynamic,
        };
        self.intern_inner(TypeInner::Array { base, size, stride })
    }

    fn global(
        &mut self,
        name: &str,
        space: AddressSpace,
        binding: Option<naga::ResourceBinding>,
        ty: Handle<naga::Type>,
        workgroup_bytes: u32,
    ) -> Handle<Expression> {
        // Every workgroup variable may start at a multiple of 16.
        self.workgroup_bytes += workgroup_bytes.next_multiple_of(16);
        let variable = naga::GlobalVariable {
            name: Some(name.into()),
            space,
            binding,
            ty,
            init: None,
            memory_decorations: naga::MemoryDecorations::empty(),
        };
        let variable = self.module.global_variables.append(variable, Span::UNDEFINED);
        self.append(Expression::GlobalVariable(variable))
    }

    fn local(&mut self, name: &str, ty: Handle<naga::Type>, init: Option<Handle<Expression>>) -> Handle<Expression> {
        let variable = naga::LocalVariable {
            name: Some(name.into()),
            ty,
            init,
        };
        let variable = self.function.local_variables.append(variable, Span::UNDEFINED);
        self.append(Expression::LocalVariable(variable))
    }
}
