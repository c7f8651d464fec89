import 'dart:async';
import 'dart:io';

/// What one sensor said at one time.
class Reading {
  final String sensor;
  final double value;

  const Reading(this.sensor, this.value);

  bool get isDoubtful => value.isNaN || value > 100;
}

enum Quality { good, doubtful, missing }

mixin Counting {
  int dropped = 0;
}

extension Means on List<double> {
  double get mean => isEmpty ? 0 : reduce((a, b) => a + b) / length;
}

class Readings with Counting {
  final Map<String, List<double>> _bySensor = {};

  // Lines that cannot be read are counted and left out.
  Future<void> read(String path, {double offset = 0}) async {
    final lines = await File(path).readAsLines();
    for (final line in lines) {
      try {
        final reading = parse(line);
        _bySensor.putIfAbsent(reading.sensor, () => []).add(reading.value - offset);
      } on FormatException catch (error) {
        dropped += 1;
        stderr.writeln('not a reading: $error');
      } finally {
        stdout.write('.');
      }
    }
  }

  Reading parse(String line) {
    final fields = line.split(',');
    switch (fields.length) {
      case 2:
        return new Reading(fields[0], double.parse(fields[1]));
      default:
        throw FormatException('expected two fields', line);
    }
  }

  Map<String, double> means() {
    var result = <String, double>{};
    _bySensor.forEach((sensor, values) {
      if (values.length < 3 && sensor != 'roof') {
        return;
      }
      result[sensor] = values.mean;
    });
    return result;
  }
}

Future<void> main(List<String> arguments) async {
  final readings = Readings();
  var index = 0;
  while (index < arguments.length) {
    await readings.read(arguments[index], offset: 0.5);
    index++;
  }
  String line(MapEntry<String, double> entry) {
    return '${entry.key}: ${entry.value.toStringAsFixed(2)}';
  }

  print(readings.means().entries.map(line).join('\n'));
}
