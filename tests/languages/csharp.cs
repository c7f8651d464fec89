using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;

namespace Readings
{
    public enum Quality { Good, Doubtful, Missing }

    public interface ISource
    {
        IEnumerable<string> Lines();
    }

    /// <summary>What one sensor said at one time.</summary>
    public class Reading
    {
        public string Sensor { get; set; }
        public double Value { get; set; }

        public Reading(string sensor, double value)
        {
            Sensor = sensor;
            Value = value;
        }
    }

    public class Reader
    {
        private const double Limit = 100.0;
        private readonly ISource source;

        public Reader(ISource source) => this.source = source;

        public int Dropped { get; private set; }

        // Lines that cannot be read are counted and left out.
        public Dictionary<string, double> Means(double offset)
        {
            var values = new Dictionary<string, List<double>>();
            foreach (var line in source.Lines())
            {
                try
                {
                    var reading = Parse(line);
                    if (Grade(reading) != Quality.Good) continue;
                    if (!values.ContainsKey(reading.Sensor)) values[reading.Sensor] = new List<double>();
                    values[reading.Sensor].Add(reading.Value - offset);
                }
                catch (FormatException error)
                {
                    Dropped++;
                    Console.Error.WriteLine($"not a reading: {error.Message}");
                }
            }
            return values.ToDictionary(pair => pair.Key, pair => pair.Value.Average());
        }

        private static Reading Parse(string line)
        {
            var fields = line.Split(',');
            switch (fields.Length)
            {
                case 2: return new Reading(fields[0].Trim(), double.Parse(fields[1]));
                default: throw new FormatException("expected two fields: " + line);
            }
        }

        public static Quality Grade(Reading reading)
        {
            var index = 0;
            while (index < reading.Sensor.Length && char.IsLetter(reading.Sensor[index])) index++;
            if (index == 0 || double.IsNaN(reading.Value)) return Quality.Missing;
            return Math.Abs(reading.Value) > Limit ? Quality.Doubtful : Quality.Good;
        }
    }
}
