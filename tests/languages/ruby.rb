# frozen_string_literal: true

require "json"

module Readings
  LIMIT = 100.0
  HEADINGS = %w[sensor value].freeze

  class LineError < StandardError; end

  # Reads the readings of sensors, one `name,value` on each line.
  class Reader
    attr_reader :dropped

    def initialize(path, offset: 0.0)
      @path = path
      @offset = offset
      @dropped = 0
    end

    # Lines that cannot be read are counted and left out.
    def values
      found = Hash.new { |hash, sensor| hash[sensor] = [] }
      File.foreach(@path) do |line|
        begin
          sensor, value = parse(line)
          found[sensor] << value - @offset
        rescue LineError => error
          @dropped += 1
          warn "not a reading: #{error.message}"
        end
      end
      return found
    end

    def means
      values.transform_values { |found| found.sum / found.size }
    end

    private

    def parse(line)
      fields = line.strip.split(",")
      case fields.size
      when 2
        [fields[0], Float(fields[1])]
      else
        raise LineError, "expected #{HEADINGS.join(', ')}"
      end
    end
  end

  def self.grade(value)
    return :missing if value.nil? || value.nan?

    steps = 0
    while value > LIMIT && steps < 10
      value /= 10
      steps += 1
    end
    if steps.zero?
      :good
    else
      :doubtful
    end
  end
end

for path in ARGV
  reader = Readings::Reader.new(path, offset: 0.5)
  puts JSON.generate(reader.means)
end
