//! Numbers for names, so that a drain compares numbers.

use std::{collections::BTreeMap, sync::Arc};

/// Numbers of names that several users may share.
#[derive(Debug)]
pub struct Names<T> {
    // Names of routes are most of what a sensor keeps: each is there once.
    numbers: BTreeMap<Arc<T>, u32>,
    names: Vec<Arc<T>>,
    users: Vec<u32>,
    released: Vec<u32>,
    free: Vec<u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            names: Vec::new(),
            users: Vec::new(),
            released: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Ord> Names<T> {
    /// The number of `name`, which has one user more now.
    pub fn take(&mut self, name: T) -> u32 {
        if let Some(number) = self.numbers.get(&name) {
            self.users[*number as usize] += 1;
            return *number;
        }
        let name = Arc::new(name);
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize] = Arc::clone(&name);
                self.users[number as usize] = 1;
                number
            }
            None => {
                self.names.push(Arc::clone(&name));
                self.users.push(1);
                self.names.len() as u32 - 1
            }
        };
        self.numbers.insert(name, number);
        number
    }

    /// Takes another user of a number in use.
    pub fn share(&mut self, number: u32) {
        self.users[number as usize] += 1;
    }

    /// Takes a user away. The number stays until the next window, because
    /// series of this one may bear it.
    pub fn release(&mut self, number: u32) {
        self.users[number as usize] -= 1;
        self.released.push(number);
    }

    /// Frees released numbers that nobody uses.
    pub fn settle(&mut self) {
        for number in self.released.drain(..) {
            let name = &self.names[number as usize];
            // Released twice in a window, it is freed once.
            if self.users[number as usize] == 0 && self.numbers.remove(name).is_some() {
                self.free.push(number);
            }
        }
    }

    /// The name behind a number.
    pub fn name(&self, number: u32) -> &T {
        &self.names[number as usize]
    }

    /// The number of `name`, if it has one.
    pub fn number(&self, name: &T) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// One more than the largest number.
    pub fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_only_in_the_next_window() {
        let mut names = Names::default();
        let first = names.take("x");
        names.release(first);
        assert_ne!(names.take("y"), first);
        assert_eq!(names.take("x"), first, "still known in this window");
        names.release(first);
        names.settle();
        assert_eq!(names.take("z"), first);
        assert_eq!(*names.name(first), "z");
        assert_eq!(
            (names.number(&"z"), names.number(&"x")),
            (Some(first), None)
        );
    }
}
