`include "defines.vh"

package counting;
  typedef enum logic [1:0] {IDLE, COUNT, DONE} state_t;
endpackage

// Counts the ones of a word, one bit in each cycle.
module popcount #(
    parameter WIDTH = 8
) (
    input  logic             clk,
    input  logic             reset,
    input  logic             start,
    input  logic [WIDTH-1:0] word,
    output logic [7:0]       ones
);
  import counting::*;

  state_t state;
  logic [WIDTH-1:0] rest;
  wire last = (rest == 0);

  assign busy = (state != IDLE) && !reset;

  always_ff @(posedge clk) begin
    if (reset) begin
      state <= IDLE;
      ones  <= 0;
    end else begin
      case (state)
        IDLE: if (start) begin
          rest  <= word;
          ones  <= 0;
          state <= COUNT;
        end
        COUNT: begin
          ones  <= ones + rest[0];
          rest  <= rest >> 1;
          state <= last ? DONE : COUNT;
        end
        default: state <= IDLE;
      endcase
    end
  end

  function automatic int expected(input logic [WIDTH-1:0] bits);
    int sum = 0;
    for (int i = 0; i < WIDTH; i = i + 1) begin
      sum = sum + bits[i];
    end
    return sum;
  endfunction

  task check;
    $display("ones %0d, expected %0d", ones, expected(word));
  endtask
endmodule

module two_popcounts (input logic clk, input logic reset, input logic [15:0] word);
  wire [7:0] low;
  popcount #(8) u_low (.clk(clk), .reset(reset), .start(1'b1), .word(word[7:0]), .ones(low));
endmodule
