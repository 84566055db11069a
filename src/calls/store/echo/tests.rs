use super::super::queue::Queue;
use super::super::tests::a_call;
use super::*;
use crate::calls::model::CallEvent;

fn taken(id: &str, delete: bool) -> InFlight {
    let mut q = Queue::new(1);
    q.push(if delete {
        CallEvent::Delete { id: id.into(), reason: "" }
    } else {
        CallEvent::Put(Box::new(Call { id: id.into(), ..a_call() }))
    });
    q.take(1, |_| true).remove(0)
}

#[test]
fn what_was_written_here_comes_back_as_it_is_in_memory() {
    let mut echo = Echo::default();
    let put = taken("a", false);
    echo.sending(&put, b"v1".to_vec(), Stamp(4, 1));
    assert_eq!(echo.put("a", b"other"), None);
    let (back, stamp) = echo.put("a", b"v1").unwrap();
    let Change::Put(sent) = &put.change else { panic!() };
    assert_eq!(stamp, Stamp(4, 1));
    assert!(back.legs[0].is_same(&sent.legs[0]));
    assert_eq!(echo.put("a", b"v1"), None, "once");
    assert!(!echo.delete("a"));
    echo.sending(&taken("a", true), Vec::new(), Stamp(4, 2));
    assert!(echo.delete("a") && !echo.delete("a"));
}

#[test]
fn it_is_bounded() {
    let mut echo = Echo::default();
    for n in 0..3 * MAX {
        echo.sending(&taken(&n.to_string(), false), vec![1], Stamp(4, 3));
        echo.put(&(n / 2).to_string(), &[1]);
        assert!(echo.sent.len() <= MAX && echo.order.len() <= 2 * MAX);
    }
    assert!(echo.put(&(3 * MAX - 1).to_string(), &[1]).is_some());
}
