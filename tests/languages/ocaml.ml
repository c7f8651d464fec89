open Printf

(* Readings of the sensors of a house. *)
type reading = { sensor : string; value : float }

type quality = Good | Doubtful | Missing

exception Bad_line of string

module Names = Map.Make (String)

let limit = 100.0
let dropped = ref 0

(* Values outside the scale are doubtful. *)
let quality reading =
  if Float.is_nan reading.value then Missing
  else if reading.value > limit then Doubtful
  else Good

let describe = function
  | Good -> "good"
  | Doubtful -> "doubtful"
  | Missing -> "missing"

let parse line =
  match String.split_on_char ',' line with
  | [ sensor; value ] -> { sensor; value = float_of_string (String.trim value) }
  | _ -> raise (Bad_line line)

(* Lines that cannot be read are counted and left out. *)
let read_all channel =
  let readings = ref [] in
  let at_end = ref false in
  while not !at_end do
    try readings := parse (input_line channel) :: !readings with
    | End_of_file -> at_end := true
    | Bad_line line ->
        incr dropped;
        eprintf "not a reading: %s\n" line
  done;
  List.rev !readings

let means readings =
  let add groups reading =
    let values = Option.value ~default:[] (Names.find_opt reading.sensor groups) in
    Names.add reading.sensor (reading.value :: values) groups
  in
  let groups = List.fold_left add Names.empty readings in
  let sum = fun values -> List.fold_left ( +. ) 0.0 values in
  Names.map (fun values -> sum values /. float_of_int (List.length values)) groups

class counter =
  object
    val mutable count = 0
    method add step = count <- count + step
    method count = count
  end

let () =
  let history = Array.make 10 0.0 in
  for index = 0 to 9 do
    history.(index) <- float_of_int index *. 2.5
  done;
  printf "%d values\n" (Array.length history)
