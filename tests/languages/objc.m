#import <Foundation/Foundation.h>

@class Reading;

// What one sensor said at one time.
@interface Reading : NSObject
@property(nonatomic, copy) NSString *sensor;
@property(nonatomic) double value;
- (instancetype)initWithSensor:(NSString *)sensor value:(double)value;
@end

@implementation Reading

- (instancetype)initWithSensor:(NSString *)sensor value:(double)value {
  self = [super init];
  if (self) {
    _sensor = [sensor copy];
    _value = value;
  }
  return self;
}

@end

typedef enum { QualityGood, QualityDoubtful } Quality;

// Lines that cannot be read are counted and left out.
static NSArray<Reading *> *ReadAll(NSString *path, NSInteger *dropped) {
  NSMutableArray *readings = [NSMutableArray array];
  NSString *text = [NSString stringWithContentsOfFile:path];
  for (NSString *line in [text componentsSeparatedByString:@"\n"]) {
    NSArray *fields = [line componentsSeparatedByString:@","];
    switch (fields.count) {
      case 2:
        [readings addObject:[[Reading alloc] initWithSensor:fields[0]
                                                      value:[fields[1] doubleValue]]];
        break;
      default:
        *dropped += 1;
    }
  }
  return readings;
}

static double Mean(NSArray<Reading *> *readings) {
  double sum = 0;
  NSUInteger index = 0;
  while (index < readings.count) {
    sum += readings[index].value;
    index++;
  }
  return index > 0 ? sum / index : 0;
}

int main(int argc, const char *argv[]) {
  NSInteger dropped = 0;
  @try {
    NSArray *readings = ReadAll(@(argv[1]), &dropped);
    NSArray *sorted = [readings sortedArrayUsingComparator:^(Reading *a, Reading *b) {
      return [@(a.value) compare:@(b.value)];
    }];
    NSLog(@"%@ %f", sorted.lastObject, Mean(readings));
  } @catch (NSException *error) {
    NSLog(@"no report: %@", error.reason);
    return 1;
  }
  return 0;
}
