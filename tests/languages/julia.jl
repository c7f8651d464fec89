module Readings

using Statistics
import Dates: DateTime, now

abstract type Sensor end

"""
    Thermometer(name, offset)

A sensor whose readings are `offset` degrees too high.
"""
struct Thermometer <: Sensor
    name::String
    offset::Float64
end

const LIMIT = 1_000

# A reading that is not a number counts as missing.
function corrected(sensor::Thermometer, values::Vector{Float64})
    kept = Float64[]
    for value in values
        if isnan(value)
            continue
        elseif length(kept) == LIMIT
            break
        end
        push!(kept, value - sensor.offset)
    end
    return isempty(kept) ? nothing : kept
end

function read_all(path, sensor)
    lines = readlines(path)
    index = 1
    total = 0.0
    while index <= length(lines)
        try
            total += parse(Float64, strip(lines[index]))
        catch error
            @warn "line $index of $path" error
        finally
            index += 1
        end
    end
    total / max(1, index - 1) - sensor.offset
end

spread(values) = maximum(values) - minimum(values)
squares = [x^2 for x in 1:10 if isodd(x)]
matrix = [1 2; 3 4] .* sqrt.(squares[1:2])

macro timed(expression)
    return :(@elapsed $(esc(expression)))
end

end
