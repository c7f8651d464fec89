package readings

import scala.collection.mutable
import scala.util.control.NonFatal

/** Where readings come from. */
trait Source {
  def next(): Option[Double]
}

case class Reading(sensor: String, value: Double)

object Readings {
  private val limit = 1000
  var dropped = 0

  // A reading that is not a number counts as missing.
  def corrected(source: Source, offset: Double): Seq[Double] = {
    val kept = mutable.ArrayBuffer.empty[Double]
    var reading = source.next()
    while (reading.isDefined && kept.size < limit) {
      val value = reading.get - offset
      if (value.isNaN) dropped += 1
      else kept.append(value)
      reading = source.next()
    }
    kept.toSeq
  }

  def parse(line: String): Either[String, Reading] = {
    val fields = line.split(",").map(_.trim)
    try {
      fields match {
        case Array(sensor, value) => Right(Reading(sensor, value.toDouble))
        case Array(only) => Left(s"no value for $only")
        case _ => return Left("too many fields: " + fields.length)
      }
    } catch {
      case NonFatal(error) => Left(error.getMessage)
    } finally {
      println("parsed one line")
    }
  }

  def summary(readings: Seq[Reading]): Map[String, Double] = {
    val bySensor = readings.groupBy(_.sensor)
    val means = for ((sensor, group) <- bySensor) yield {
      val values = group.map(reading => reading.value)
      sensor -> values.sum / values.size
    }
    for (sensor <- means.keys) println(sensor)
    means.toMap
  }
}

class Repeated(values: List[Double]) extends Source {
  private var position = 0

  def next(): Option[Double] = {
    position = (position + 1) % values.length
    Some(values(position))
  }
}

object Main extends App {
  val source = new Repeated(List(1.0, 2.5, 4.0))
  println(Readings.corrected(source, offset = 0.5).mkString(" "))
}
