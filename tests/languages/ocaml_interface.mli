(** Bounded queues whose oldest element makes room for the newest. *)

open Stdlib

(** Raised by {!take} on a queue without elements. *)
exception Empty

type 'a t = {
  mutable first : int;
  mutable length : int;
  items : 'a option array;
}

(** What happens to an element that does not fit. *)
type policy =
  | Drop_oldest
  | Drop_newest
  | Refuse of string

module type CLOCK = sig
  val now : unit -> float
end

module Timed : sig
  type 'a entry = { at : float; value : 'a }

  val older_than : float -> 'a entry -> bool
end

(** [create ~policy size] holds [size] elements at most. *)
val create : policy:policy -> int -> 'a t

val push : 'a t -> 'a -> bool

(** The oldest element, which leaves the queue. *)
val take : 'a t -> 'a

external unsafe_blit : 'a array -> int -> 'a array -> int -> int -> unit
  = "caml_array_blit"
